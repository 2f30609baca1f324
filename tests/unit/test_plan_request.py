"""The drafted resource request: its tables hold the plans' figures, and nothing that cannot run is asked for."""

from __future__ import annotations

import re
from math import ceil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.plan.duration import Stated
from jobs.plan.estimate import Plan, make_plan
from jobs.plan.request import CONTINGENCY, Stage, request_text, write_request
from jobs.plan.resources import resources
from jobs.site import load_site
from nemo_ext.common.errors import ConfigError, OutputExistsError
from nemo_ext.config import apply_overrides
from recipes import load_recipe
from recipes.cli.main import app


def plan(recipe: str, *overrides: str, nodes: int | None = None, price: float | None = None, site: str = "nibi") -> Plan:
    config = apply_overrides(load_recipe(recipe), list(overrides))
    return make_plan(config, resources(config, load_site(site), nodes, None, None, price), Stated())


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows of each section's tables, without heads and rules."""
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
        found[title] = [row for row in rows if not set("".join(row)) <= {"-"}]
    return found


def test_the_tables_hold_the_figures_of_the_plans() -> None:
    first, second = plan("early_modern_72b", price=2.5), plan("early_modern_ner_72b", price=2.5)
    text = request_text([Stage("early_modern_72b", "first", first), Stage("early_modern_ner_72b", "second", second)])
    assert first.duration and second.duration and first.speed
    found = tables(text)
    hours = first.duration.gpu_hours + second.duration.gpu_hours
    summary = {row[0]: row[1] for row in found["Summary"] if row[0]}
    assert summary["GPU-hours"].startswith(f"{ceil(hours * (1 + CONTINGENCY)):,} ({hours:,.0f} planned")
    assert summary["Price"] == f"{2.5 * hours:,.0f} US dollars as planned"
    times = found["GPUs and time"][1]
    assert times[:3] == ["early_modern_72b", "4 x 8", "8 x 4 x 1"]
    assert times[3:] == [
        f"{first.speed.tokens_per_s:,.0f}",
        f"{first.speed.mfu:.0%}",
        f"{first.duration.wall_s / 3600:,.1f}",
        str(first.duration.jobs),
        f"{first.duration.gpu_hours:,.1f}",
    ]
    assert ["1", "153.6", "no"] in found["Memory, and why so many GPUs"] and ["4", "40.6", "yes"] in found["Memory, and why so many GPUs"]
    assert "2 bytes of weights, 4 of gradients (fp32) and 12 of optimizer state for each parameter: 1.31 TB" in text
    assert found["Storage"][1][1] == f"{14 * first.architecture.parameters / 1e9:,.1f}"
    assert "{{" not in text and "None" not in text


def test_what_cannot_run_is_not_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "request.md"
    with pytest.raises(ConfigError, match=r"early_modern_72b cannot be asked for: Stage 0 needs 166.6 GiB"):
        write_request(target, [Stage("early_modern_72b", "", plan("early_modern_72b", "parallel.pp=1", nodes=1))])
    with pytest.raises(ConfigError, match=r"demo cannot be asked for: nothing is known of its time on GPUs"):
        write_request(target, [Stage("demo", "", plan("demo", site="local"))])
    assert not target.exists()


def test_the_command_writes_the_request_and_replaces_it_only_when_told(tmp_path: Path) -> None:
    target = tmp_path / "request.md"
    arguments = ["plan", "early_modern_72b", "--site", "nibi", "--request", str(target), "--then", "early_modern_ner_72b"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    text = target.read_text(encoding="utf-8")
    assert "1. `early_modern_72b`: Qwen2.5-72B on early modern English" in text and "2. `early_modern_ner_72b`" in text
    assert isinstance(CliRunner().invoke(app, arguments).exception, OutputExistsError)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert target.read_text(encoding="utf-8") == text
