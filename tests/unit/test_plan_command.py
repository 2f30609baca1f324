"""`sibol plan`: what it prints, how it ends, and that it needs nothing that a login node lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from recipes.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[2]


def sibol(*arguments: str) -> tuple[int, str]:
    """Exit code and output, on one line, of `sibol plan ARGUMENTS`."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", *arguments])
    return result.exit_code, " ".join(result.output.split())


def test_a_plan_shows_memory_time_money_and_storage() -> None:
    code, out = sibol("early_modern_72b", "--site", "nibi", "--price", "2")
    assert code == 0
    for text in (
        "72,706.2 million parameters of qwen2, 32 h100 on 4 node(s)",
        "tokens/s",
        "GPU-hours",
        "US dollars",
        "checkpoints",
        "peak",
    ):
        assert text in out


def test_what_does_not_fit_ends_with_1_and_names_the_nearest_that_does() -> None:
    code, out = sibol("early_modern_72b", "parallel.pp=1", "--site", "nibi", "--nodes", "1", "--search")
    assert code == 1
    assert "does not fit: Stage 0 needs 166.6 GiB of each GPU" in out
    assert "nearest that fits: parallel.pp=2, --nodes 4" in out


def test_layouts_are_listed_with_the_settings_that_make_them() -> None:
    code, out = sibol("survey_14b_pretraining", "--site", "nibi", "--search")
    assert code == 0 and "layouts that fit" in out and "parallel.tp=2" in out


def test_json_has_every_figure_with_its_unit() -> None:
    result = CliRunner().invoke(app, ["plan", "survey_14b_pretraining", "--site", "nibi", "--search", "--json"])
    record = json.loads(result.stdout)
    assert result.exit_code == 0 and record["fits"] and record["nearest"] is None
    memory = record["memory"][0]
    parts = [memory[f"{name}_bytes"] for name in ("weights", "gradients", "optimizer", "activations")]
    assert memory["peak_bytes"] == sum(parts) + max(memory["loss_bytes"], memory["working_bytes"])
    assert record["duration"]["gpu_hours"] == record["duration"]["wall_s"] / 3600 * record["gpus"]
    assert record["layouts"][0]["speed"]["tokens_per_s"] >= record["speed"]["tokens_per_s"]


def test_planning_loads_nothing_that_a_login_node_lacks() -> None:
    program = """import sys
from recipes.cli.main import app
sys.argv = ["sibol", "plan", "early_modern_72b", "--site", "nibi", "--search"]
try:
    app()
except SystemExit:
    print(sorted({"torch", "numpy", "transformers", "megatron", "nemo", "lightning"} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    assert output.splitlines()[-1] == "[]"
