"""Figures of a report as SVG: curves of runs laid over each other, and bars with intervals per category.

Each figure is narrow, so that it can be read on a phone; a page lays as many side by side as fit. The same input gives the same
bytes with the same matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.history import RunHistory
from evaluation.statistics import FloatArray

# Okabe & Ito's palette keeps its contrasts for colour-blind readers (https://jfly.uni-koeln.de/color/); dashes tell lines apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5), (6, 2, 1, 2), (3, 1), (8, 2, 1, 2, 1, 2), (2, 3))
QUIET_COLOUR = "#8A8A8A"
SMOOTHED_FROM_POINTS = 200  # below this every single figure can be seen
SMOOTHED_SHARE = 0.02
BAR_INCHES = 0.2
MOST_BARS = 60
LONGEST_NAME = 56  # of a category beside its bars, in characters
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
    "svg.fonttype": "path",
    "svg.hashsalt": "sibol",
    "text.parse_math": False,  # a name with two dollar signs is a name
}


@dataclass(frozen=True)
class Curve:
    """One run under its label; `bytes_per_token` where the bytes of text that it read are known."""

    label: str
    history: RunHistory
    bytes_per_token: float | None = None


@dataclass(frozen=True)
class Bar:
    """A value of a category with its interval; `model` decides its colour."""

    model: str
    category: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Figure:
    """An SVG document; `alt` says in words what it shows."""

    name: str
    title: str
    alt: str
    svg: bytes


def curve_figures(curves: Sequence[Curve]) -> list[Figure]:
    """Loss over tokens, bits per byte over bytes, learning rate, gradient norm and speed; only those that were logged."""
    figures = [_over_tokens(curves, "loss", "Loss over tokens", "loss (nats per token)", "validation_loss")]
    in_bytes = [one for one in curves if one.bytes_per_token]
    if in_bytes:
        figures.append(_bits_over_bytes(in_bytes))
    figures.append(_over_tokens(curves, "learning_rate", "Learning rate", "learning rate"))
    for column, title, unit in (("grad_norm", "Gradient norm", "gradient norm"), ("tokens_per_s", "Throughput", "tokens per second")):
        if any(np.isfinite(one.history.training[column]).any() for one in curves):
            figures.append(_over_tokens(curves, column, title, unit))
    return figures


def _over_tokens(curves: Sequence[Curve], column: str, title: str, unit: str, validation: str | None = None) -> Figure:
    def draw(axes: Any) -> None:
        for number, one in enumerate(curves):
            training, tokens_per_step = one.history.training, one.history.tokens_per_step
            _draw_curve(axes, number, training["consumed_tokens"], training[column])
            if validation:
                _draw_points(axes, number, one.history.validation["step"] * tokens_per_step, one.history.validation[validation])
            _mark_resumes(axes, number, [step * tokens_per_step for step in one.history.resumes])
        _finish(axes, unit, "training tokens", from_zero=column != "loss")

    return _figure(column, title, _words(curves, title, unit, "training tokens"), draw)


def _bits_over_bytes(curves: Sequence[Curve]) -> Figure:
    def draw(axes: Any) -> None:
        for number, one in enumerate(curves):
            ratio, training, validation = one.bytes_per_token or 1.0, one.history.training, one.history.validation
            bytes_per_step = one.history.tokens_per_step * ratio
            _draw_curve(axes, number, training["consumed_tokens"] * ratio, training["loss"] / np.log(2) / ratio)
            _draw_points(axes, number, validation["step"] * bytes_per_step, validation["validation_bits_per_byte"])
            _mark_resumes(axes, number, [step * bytes_per_step for step in one.history.resumes])
        _finish(axes, "bits per byte", "bytes of training text", from_zero=False)

    title = "Bits per byte over bytes"
    return _figure("bits_per_byte", title, _words(curves, title, "bits per byte", "bytes of training text"), draw)


def bar_figure(name: str, title: str, metric: str, bars: Sequence[Bar], models: Sequence[str]) -> Figure:
    """Horizontal bars, grouped by category; `models` in the order of their colours. At most MOST_BARS are drawn."""
    drawn = list(bars)[:MOST_BARS]
    rows = [(number, bar) for number, bar in enumerate(drawn)]
    starts = [number for number, bar in rows if number == 0 or drawn[number - 1].category != bar.category]
    places = {number: number + 0.7 * sum(start <= number for start in starts) for number, _ in rows}

    def draw(axes: Any) -> None:
        for number, bar in rows:
            colour = COLOURS[models.index(bar.model) % len(COLOURS)]
            axes.barh(places[number], bar.value, height=0.85, color=colour)
            if bar.low is not None and bar.high is not None:
                spread = [[bar.value - bar.low], [bar.high - bar.value]]
                axes.errorbar(bar.value, places[number], xerr=spread, color="#222222", linewidth=0.8, capsize=2)
        ends = [*starts[1:], len(drawn)]
        middles = [(places[start] + places[end - 1]) / 2 for start, end in zip(starts, ends, strict=True)]
        axes.set_yticks(middles, [_short(drawn[start].category) for start in starts])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel(metric)

    alt = f"{title}: bars of {len(starts)} categories for {', '.join(models)}; the same figures stand in the table."
    return _figure(name, title, alt, draw, 0.9 + BAR_INCHES * (max(places.values(), default=0) + 1), 6.6)


def _figure(name: str, title: str, alt: str, draw: Callable[[Any], None], height_inches: float = 2.9, width_inches: float = 4.4) -> Figure:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    output = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12)  # wide enough for a tick label that sticks out at the end of the axis
        figure = Canvas(figsize=(width_inches, height_inches), layout=layout)
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        figure.savefig(output, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Figure(name, title, alt, output.getvalue())


def _draw_curve(axes: Any, number: int, places: FloatArray, values: FloatArray) -> None:
    known = np.isfinite(values)
    places, values = places[known], values[known]
    style = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.2, "dashes": DASHES[number % len(DASHES)]}
    window = smoothing_window(len(values))
    if window > 1:
        axes.plot(places, values, color=style["color"], linewidth=0.4, alpha=0.25)
    axes.plot(_moving_mean(places, window), _moving_mean(values, window), **style)
    if len(values) == 1:
        axes.plot(places, values, color=style["color"], marker="_", markersize=8)


def _draw_points(axes: Any, number: int, places: FloatArray, values: FloatArray) -> None:
    known = np.isfinite(values)
    style = {"linestyle": "none", "marker": "o", "markersize": 3.5, "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 3}
    axes.plot(places[known], values[known], color=COLOURS[number % len(COLOURS)], **style)


def _mark_resumes(axes: Any, number: int, places: Sequence[float]) -> None:
    for place in places:
        axes.axvline(place, color=COLOURS[number % len(COLOURS)], alpha=0.6, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)


def _finish(axes: Any, unit: str, places: str, from_zero: bool) -> None:
    from matplotlib.ticker import EngFormatter

    if from_zero:
        axes.set_ylim(bottom=0)
    if unit == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
    if unit == "tokens per second":
        axes.yaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    axes.set_xlim(left=0)
    axes.set_xlabel(places)
    axes.set_ylabel(unit)


def _words(curves: Sequence[Curve], title: str, unit: str, places: str) -> str:
    return f"{title}: {unit} against {places} for {', '.join(one.label for one in curves)}; the table of runs has the last figures."


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def smoothing_window(points: int) -> int:
    """How many neighbours are averaged for the line."""
    return 1 if points < SMOOTHED_FROM_POINTS else max(5, int(points * SMOOTHED_SHARE))


def _moving_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of each `window` neighbours; `window - 1` values shorter, so that no end is made up."""
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
