"""The loss curve of a run as one picture: training and validation loss over tokens, the learning rate below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluation.history import RunHistory
from evaluation.statistics import FloatArray
from nemo_ext.common.files import atomic_file

# Okabe & Ito's palette keeps its contrasts for colour-blind readers (https://jfly.uni-koeln.de/color/).
TRAINING_COLOUR, VALIDATION_COLOUR, RATE_COLOUR, QUIET_COLOUR = "#0072B2", "#D55E00", "#444444", "#8A8A8A"
SMOOTHED_FROM_POINTS = 200  # below this every single loss can be seen
SMOOTHED_SHARE = 0.02
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.labelcolor": "#222222",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}


def plot_loss(history: RunHistory, path: Path | str, title: str) -> None:
    """Write a PNG of 1200 x 840 pixels, atomically. The same history gives the same bytes with the same matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.6), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        _draw_losses(upper, history)
        _draw_learning_rate(lower, history)
        figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
        with atomic_file(path, "wb") as handle:
            figure.savefig(handle, format="png", metadata={"Software": None})


def _draw_losses(axes: Any, history: RunHistory) -> None:
    tokens, losses = history.training["consumed_tokens"], history.training["loss"]
    window = _smoothing_window(len(losses))
    if window > 1:
        axes.plot(tokens, losses, color=TRAINING_COLOUR, linewidth=0.5, alpha=0.3)
        label = f"training, mean of {window} logged steps"
        axes.plot(_moving_mean(tokens, window), _moving_mean(losses, window), color=TRAINING_COLOUR, linewidth=1.2, label=label)
    else:
        axes.plot(tokens, losses, color=TRAINING_COLOUR, linewidth=1.0, label="training")
    validated = history.validation["step"] * history.tokens_per_step
    if len(validated):
        style = {"color": VALIDATION_COLOUR, "linewidth": 0.9, "marker": "o", "markersize": 3.5, "zorder": 3}
        axes.plot(validated, history.validation["validation_loss"], label="validation", **style)
    _mark_resumes(axes, history, "resumed from checkpoint")
    axes.set_ylabel("loss (nats per token)")
    # Above the axes, where neither a curve nor a resume mark can run through it.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, borderpad=0.3, columnspacing=1.6)


def _draw_learning_rate(axes: Any, history: RunHistory) -> None:
    from matplotlib.ticker import EngFormatter

    axes.plot(history.training["consumed_tokens"], history.training["learning_rate"], color=RATE_COLOUR, linewidth=1.0)
    _mark_resumes(axes, history, None)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    axes.set_xlim(left=0)
    axes.set_xlabel(f"training tokens ({history.tokens_per_step:,.0f} per step)")
    axes.figure.align_ylabels()


def _mark_resumes(axes: Any, history: RunHistory, label: str | None) -> None:
    for number, step in enumerate(history.resumes):
        where = step * history.tokens_per_step
        axes.axvline(where, color=QUIET_COLOUR, linewidth=0.8, linestyle=(0, (2, 2)), label=label if number == 0 else None, zorder=1)


def _smoothing_window(points: int) -> int:
    return 1 if points < SMOOTHED_FROM_POINTS else max(5, int(points * SMOOTHED_SHARE))


def _moving_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of each `window` neighbours; `window - 1` values shorter, so that no end is made up."""
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
