"""What `sibol evaluate` prints: every figure in full, in a terminal or a job's log of 80 columns."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from evaluation.table import render

METRICS = {
    "minimal_pairs": ("accuracy", "accuracy_sum", "accuracy_byte", "above_chance"),
    "multiple_choice": ("accuracy", "accuracy_sum", "accuracy_byte", "accuracy_shown", "above_chance", "accuracy_gold_not_in_prompt"),
    "bits_per_byte": ("bits_per_byte", "byte_perplexity", "token_perplexity", "bytes_per_token", "tokens"),
}


def figures(names: tuple[str, ...], first: int) -> dict[str, dict[str, float]]:
    """Figures of five digits, none like another."""
    starts = {name: first + 3 * place for place, name in enumerate(names)}
    return {name: {"value": start / 1e5, "low": (start - 1) / 1e5, "high": (start + 1) / 1e5} for name, start in starts.items()}


@pytest.mark.parametrize("suite", METRICS)
def test_eighty_columns_hold_every_figure_of_two_models(suite: str) -> None:
    names = METRICS[suite]
    model, baseline = figures(names, 41000), figures(names, 52000)
    difference = figures(names[:1] if suite == "bits_per_byte" else names, -13000)
    trivial = {name: {metric: {"value": 0.25} for metric in names} for name in ("uniform", "majority")}
    results: dict[str, Any] = {
        "suite": {"name": suite, "version": 1, "primary_metric": names[0]},
        "data": {"documents": 1000, "bytes": 99999},
        "settings": {"confidence": 0.95, "interval": "percentile bootstrap over items"},
        "metrics": model,
        "references": trivial,
        "baseline": {"metrics": baseline, "references": trivial, "difference": difference},
        "domains": {},
        "warnings": ["Few items."],
    }
    output = io.StringIO()
    Console(width=80, file=output).print(render(results))
    text = output.getvalue()
    shown = [entry["value"] for part in (model, baseline, difference) for name, entry in part.items() if name != "byte_perplexity"]
    assert all(f"{value:#.5g}" in text for value in shown) and "…" not in text, text
    assert f"[{model[names[0]]['low']:#.5g}, {model[names[0]]['high']:#.5g}]" in text
