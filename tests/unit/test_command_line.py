"""The command line: what its verbs print and import, and how mistakes end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recipes import RECIPES
from recipes.cli import main as command_line

REPOSITORY = Path(__file__).resolve().parents[2]


def sibol(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sibol ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["sibol", *arguments])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    program = """import sys
from recipes.cli.main import app
sys.argv = ["sibol", "--help"]
try:
    app()
except SystemExit:
    print(sorted(sys.modules))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    text, _, modules = output.rpartition("\n[")
    for verb in (
        "recipes",
        "show",
        "tokenizer",
        "data",
        "plan",
        "train",
        "export",
        "slice",
        "evaluate",
        "demo",
        "submit",
        "jobs",
        "stage",
        "doctor",
    ):
        assert f"  {verb} " in text
    heavy = ("'torch'", "'numpy'", "'transformers'", "'nemo'", "'megatron'", "'omegaconf'", "'matplotlib'", "'tokenizers'")
    assert [name for name in heavy if name in modules] == []


def test_recipes_and_show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = sibol(monkeypatch, capsys, "recipes")
    assert code == 0 and all(name in out for name in RECIPES)
    code, out, _ = sibol(monkeypatch, capsys, "show", "demo", "train.max_steps=7")
    assert code == 0 and "max_steps: 7" in out
    code, out, _ = sibol(monkeypatch, capsys, "show", "demo", "--explain")
    assert code == 0 and "optimizer.weight_decay" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "dmeo"], "error: Unknown recipe 'dmeo'. Did you mean 'demo'"),
        (["show", "demo", "train.maxsteps=7"], "error: Unknown setting 'train.maxsteps'. Did you mean 'train.max_steps'?"),
        (["show", "demo", "train.max_steps=x"], "error: Override 'train.max_steps=x': the value 'x' does not fit train.max_steps"),
        (["train", "demo", "data.path=/absent"], "error: Dataset folder /absent does not exist"),
        (["train", "demo", "--ranks", "3", "data.path=/absent"], "error: 3 rank(s) cannot hold tp=2"),
        (["export", "/absent", "/tmp/out"], "error: /absent has no complete checkpoint"),
        (["evaluate", "/absent", "--data", "/absent", "--out", "/absent/out"], "error: "),
    ],
)
def test_a_mistake_ends_in_one_message_without_a_traceback(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = sibol(monkeypatch, capsys, *arguments)
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err


def test_shell_completion_offers_recipes_and_settings() -> None:
    environment = {"_SIBOL_COMPLETE": "complete_bash", "COMP_WORDS": "sibol show de", "COMP_CWORD": "2"}
    result = CliRunner().invoke(command_line.app, [], env=environment, prog_name="sibol")
    assert result.output.split() == ["demo"]
    environment = {"_SIBOL_COMPLETE": "complete_bash", "COMP_WORDS": "sibol train demo optimizer.beta", "COMP_CWORD": "3"}
    result = CliRunner().invoke(command_line.app, [], env=environment, prog_name="sibol")
    assert result.output.split() == ["optimizer.beta1=", "optimizer.beta2="]
