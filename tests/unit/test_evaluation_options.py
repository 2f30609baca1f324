"""Options of a suite on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from evaluation.options import read_options, split_assignments
from nemo_ext.common.errors import ConfigError


@dataclass(frozen=True)
class Options:
    prompt: str = "Q: "
    shots: int = 0
    temperature: float = 0.6
    shuffle: bool = False
    form: Literal["mcq", "gen"] = "mcq"
    labels: tuple[str, ...] = ()
    limit: int | None = None


def test_every_type_is_read_and_what_is_not_given_keeps_its_default() -> None:
    given = {"shots": "3", "temperature": "1e-1", "shuffle": "true", "form": "gen", "labels": "LOC, PERS", "limit": "5"}
    assert read_options(Options, given, "s") == Options("Q: ", 3, 0.1, True, "gen", ("LOC", "PERS"), 5)
    assert read_options(Options, {"limit": "none"}, "s") == Options()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("shots", "two", "whole number"),
        ("shots", "1.5", "whole number"),
        ("temperature", "nan", "finite number"),
        ("shuffle", "maybe", "true or false"),
        ("form", "essay", "mcq or gen"),
        ("limit", "all", "whole number"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_expected(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {name}={value}: expected .*{expected}"):
        read_options(Options, {name: value}, "s")


def test_an_unknown_option_is_refused_with_the_options_there_are() -> None:
    with pytest.raises(ConfigError, match=r"the suite pacute has no such option. Its options: form, labels, limit, prompt"):
        read_options(Options, {"from": "gen"}, "pacute")


def test_assignments_keep_what_stands_after_the_first_equals_sign() -> None:
    assert split_assignments(["prompt=a=b", "empty="]) == {"prompt": "a=b", "empty": ""}


@pytest.mark.parametrize("wrong", [["prompt"], ["=x"], ["a=1", "a=2"]])
def test_assignments_without_a_name_or_with_one_twice_are_refused(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match="--set"):
        split_assignments(wrong)
