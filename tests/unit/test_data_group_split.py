"""No group is in two splits, nothing is lost, and the assignment depends on group and seed alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_tools import group_split
from data_tools.group_split import SplitOptions, group_of, split_by_group
from data_tools.lines import RawDocument
from nemo_ext.common.errors import ConfigError, DataError
from tests.support.small_text import write_jsonl

GROUPS = st.lists(st.one_of(st.text(min_size=1, max_size=4), st.integers(-3, 30)), min_size=1, max_size=60)


def run(folder: Path, documents: list[Any], **options: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    write_jsonl(folder / "in.jsonl", documents)
    settings = {"group_by": "group", "shares": "50,25,25", "overwrite": True} | options
    manifest = split_by_group(SplitOptions((str(folder / "in.jsonl"),), folder / "out", **settings))
    files = {name: (folder / "out" / entry["name"]).read_text().splitlines() for name, entry in manifest["splits"].items()}
    return manifest, {name: [json.loads(line) for line in lines] for name, lines in files.items()}


@given(GROUPS, st.integers(0, 5))
def test_groups_stay_together_nothing_is_lost_and_order_does_not_matter(groups: list[Any], seed: int) -> None:
    documents = [{"group": group, "n": number} for number, group in enumerate(groups)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            manifest, found = run(Path(folder), documents, seed=seed)
        except DataError as error:
            assume("No group fell" not in str(error))
            raise
        _, backwards = run(Path(folder), documents[::-1], seed=seed)
    split_of = {str(document["group"]): name for name, lines in found.items() for document in lines}
    assert sorted(document["n"] for lines in found.values() for document in lines) == list(range(len(groups)))
    assert all(split_of[str(document["group"])] == name for name, lines in found.items() for document in lines)
    assert all([document["n"] for document in lines] == sorted(document["n"] for document in lines) for lines in found.values())
    assert backwards == {name: lines[::-1] for name, lines in found.items()}
    assert manifest["proof"]["groups_in_two_splits"] == 0
    assert {name: len({str(document["group"]) for document in lines}) for name, lines in found.items()} == manifest["proof"]["groups"]


def test_shares_are_met_and_seeds_differ(tmp_path: Path) -> None:
    documents = [{"group": number % 2000} for number in range(4000)]
    manifest, found = run(tmp_path, documents, shares="90,5,5")
    shares = [manifest["splits"][name]["groups"] / 2000 for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.02)
    assert run(tmp_path, documents, shares="90,5,5", seed=1)[1] != found
    assert list(run(tmp_path, documents, shares="80,20,0")[1]) == ["train", "validation"]


def test_nested_fields_are_found_and_a_literal_dot_comes_first() -> None:
    def group(line: str, field: str) -> Any:
        return group_of(RawDocument(0, 2, line.encode()), field)

    assert group('{"meta": {"study": "x"}}', "meta.study") == "x"
    assert group('{"meta.study": 5, "meta": {"study": "x"}}', "meta.study") == "5"
    assert group('{"meta": {}}', "meta.study").detail == "no field 'meta.study'"
    assert group('{"meta": 1}', "meta.study").reason == group("{}", "meta.study").reason == "missing-group"
    assert {group(f'{{"group": {value}}}', "group").reason for value in ("null", "true", '""', "1.5", "[]")} == {"bad-group"}
    assert group("[", "group").reason == "broken-json"


def test_bad_lines_follow_the_policy_and_are_counted(tmp_path: Path) -> None:
    documents = [{"group": number} for number in range(50)] + [{}, {"group": None}]
    with pytest.raises(DataError, match=r"in\.jsonl:51: missing-group"):
        run(tmp_path, documents)
    manifest, found = run(tmp_path, documents, on_bad_line="quarantine")
    assert manifest["skipped"] == {"bad-group": 1, "missing-group": 1}
    assert sum(map(len, found.values())) == 50
    assert len((tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()) == 2


FUZZED = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"", b" ", b"{}", b'{"group": "\\ud800"}', b'{"group": 1, "group": 2}', b"\x00", b"[" * 3000, b'{"group": 1e999}', b"9" * 5000]
    ),
).map(lambda raw: raw.replace(b"\n", b"") + b"\n")


@given(st.lists(FUZZED, max_size=30), st.randoms(use_true_random=False))
def test_every_line_of_any_input_is_in_one_split_or_counted(lines: list[bytes], random: Random) -> None:
    lines = lines + [b'{"group": %d}\n' % number for number in range(60)]
    random.shuffle(lines)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.jsonl").write_bytes(b"".join(lines))
        options = SplitOptions((f"{folder}/in.jsonl",), Path(folder) / "out", "group", shares="1,1,0", on_bad_line="quarantine")
        manifest = split_by_group(options)
        quarantined = len((Path(folder) / "out" / "quarantine.jsonl").read_bytes().splitlines())
    assert sum(entry["lines"] for entry in manifest["splits"].values()) + sum(manifest["skipped"].values()) == len(lines)
    assert quarantined == sum(manifest["skipped"].values()) - manifest["skipped"].get("blank-line", 0)


def test_lines_of_several_files_stand_on_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(b'\xef\xbb\xbf{"group": 1}\n{"group": 1}')
    inputs = (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    split_by_group(SplitOptions(inputs, tmp_path / "out", "group", shares="1,0,0"))
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == b'{"group": 1}\n' * 4


def test_an_empty_split_and_wrong_options_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No group fell into validation and test"):
        run(tmp_path, [{"group": 1}] * 3, shares="98,1,1")
    with pytest.raises(ConfigError, match="--shares"):
        run(tmp_path, [{"group": 1}], shares="0,1,1")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_proof_fails_when_a_group_is_in_two_files(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"group": 1}])
    entry = {"lines": 1, "groups": 1}
    with pytest.raises(AssertionError, match="1 groups are in two splits"):
        group_split._prove(tmp_path, {"train": entry | {"name": "train.jsonl"}, "test": entry | {"name": "test.jsonl"}}, "group")
