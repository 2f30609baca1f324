"""The picture of a dataset: how long its documents are, and what its plugin did to the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_tools.inspection import lengths_of
from nemo_ext.common.dataset import DatasetInfo
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import atomic_file

FORMATS = ("png", "svg", "pdf")
PANEL_INCHES = (6.4, 4.5)
BAR_WIDTH = 0.38


def plot_dataset(info: DatasetInfo, treatment: dict[str, Any] | None, path: Path) -> None:
    """Draw a histogram of document lengths, and beside it the `treatment` (from `describe_treatment`), if there is one.

    Written as .png, .svg or .pdf by the name of `path`. Raises ConfigError for other names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ConfigError(f"--plot {path}: expected a name that ends in .png, .svg or .pdf.")
    panels = 1 if treatment is None else 2 if treatment["affixes"] is None else 3
    figure = Figure(figsize=(PANEL_INCHES[0] * panels, PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, panels)).tolist()
    figure.suptitle(str(info.path))
    _draw_lengths(axes[0], info)
    if treatment is not None:
        _draw_bars(axes[1], _ratios(treatment), "ratio")
        if treatment["affixes"] is not None:
            _draw_bars(axes[2], _affix_shares(treatment["affixes"]), "share of affixes with a token boundary")
    with atomic_file(path, "wb") as handle:
        figure.savefig(handle, format=kind, dpi=150)


def _draw_lengths(axes: Any, info: DatasetInfo) -> None:
    lengths = {name: lengths_of(split) for name, split in info.splits.items()}
    shortest = min(max(1, int(values.min())) for values in lengths.values())
    longest = max(int(values.max()) for values in lengths.values())
    edges = np.geomspace(shortest, max(shortest, longest) + 1, num=50)  # lengths spread over orders of magnitude
    for name, values in lengths.items():
        label, share = f"{name} ({len(values):,} documents)", np.full(len(values), 1 / len(values))  # splits differ in size
        axes.hist(np.maximum(values, 1), bins=edges.tolist(), weights=share, histtype="step", linewidth=1.5, label=label)
    axes.set(xscale="log", xlabel="tokens per document", ylabel="share of the split's documents")
    axes.legend()


def _ratios(treatment: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    return {"tokens per word": treatment["tokens_per_word"], "bytes per token": treatment["bytes_per_token"]}


def _affix_shares(affixes: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    kinds = {kind: entry for kind, entry in affixes["kinds"].items() if entry["occurrences"]}
    return {
        **{f"{kind}\nat edge": entry["boundary_at_edge"] for kind, entry in kinds.items()},
        **{f"{kind}\ncut within": entry["cut_within"] for kind, entry in kinds.items()},
    }


def _draw_bars(axes: Any, bars: dict[str, dict[str, float | None]], label: str) -> None:
    """Pairs of bars: as the tokenizer alone cuts, and as stored."""
    for shift, (key, name) in zip((-BAR_WIDTH / 2, BAR_WIDTH / 2), (("before", "vanilla"), ("after", "stored")), strict=True):
        drawn = axes.bar(np.arange(len(bars)) + shift, [pair[key] or 0.0 for pair in bars.values()], BAR_WIDTH, label=name)
        axes.bar_label(drawn, fmt="%.2f", fontsize=8)
    axes.set_xticks(np.arange(len(bars)), list(bars), fontsize=8)
    axes.set_ylabel(label)
    axes.legend()
