"""`sibol evaluate` measures, `sibol evaluate generate` writes a benchmark, and neither stands in the other's way."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from evaluation.suites import SUITES
from nemo_ext.common.errors import DataError, OutputExistsError
from recipes.cli import evaluate
from recipes.cli.main import app


def sibol(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env=environment, prog_name="sibol")


def test_a_first_word_that_is_no_command_is_the_model_to_measure(tmp_path: Path) -> None:
    for first in (tmp_path / "absent", "./generate"):
        outcome = sibol("evaluate", first, "--data", tmp_path, "--out", tmp_path / "out")
        assert isinstance(outcome.exception, DataError) and str(first).removeprefix("./") in str(outcome.exception)
    outcome = sibol("evaluate", "--data", tmp_path, tmp_path / "absent", "--out", tmp_path / "out")
    assert isinstance(outcome.exception, DataError)


def test_help_lists_every_suite_of_the_project() -> None:
    assert [name.partition(":")[0] for name in evaluate.SUITES.split(", ")] == sorted(SUITES._builtin)


def test_help_is_that_of_measuring_and_names_the_other_command() -> None:
    text = sibol("evaluate", "--help").output
    assert text.startswith("Usage: sibol evaluate [OPTIONS]") and "--baseline" in text and "sibol evaluate generate OUT" in text
    outcome = sibol("evaluate")
    assert outcome.exit_code == 2 and "Missing argument 'HF_DIR'" in outcome.output and "'sibol evaluate --help'" in outcome.output
    text = sibol("evaluate", "generate", "--help").output
    assert "--items" in text and "--baseline" not in text


def test_a_shell_completes_the_command_and_the_options_of_measuring() -> None:
    asked = {"_SIBOL_COMPLETE": "complete_bash", "COMP_WORDS": "sibol evaluate ge", "COMP_CWORD": "2"}
    assert sibol(**asked).output.split() == ["generate"]
    asked = {"_SIBOL_COMPLETE": "complete_bash", "COMP_WORDS": "sibol evaluate folder --base", "COMP_CWORD": "3"}
    assert sibol(**asked).output.split() == ["--baseline"]


def test_generate_says_what_it_wrote_and_replaces_nothing(tmp_path: Path) -> None:
    outcome = sibol("evaluate", "generate", tmp_path / "out", "--suites", "addition", "--items", 3)
    assert outcome.exit_code == 0 and "multi_digit_addition_mcq.jsonl: 3 items" in outcome.output
    assert "--suite addition --data" in outcome.output
    again = sibol("evaluate", "generate", tmp_path / "out")
    assert isinstance(again.exception, OutputExistsError)
