"""Figures, rows, warnings and the plot of timed sweeps."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from evaluation.plot import COLOURS, DASHES, STYLE
from evaluation.statistics import Interval
from evaluation.suites import Summary
from evaluation.suites.throughput_sweep import Sweep
from evaluation.suites.throughput_timing import LOADER_ONLY, PROTOCOLS, Cell, best

PLOT_NAME = "throughput.png"
METRIC = "seconds_per_100k_texts"
CPU_METRIC = "cpu_seconds_per_200_texts"
WIDE_SPREAD = 1.5  # slowest over fastest pass of a cell from which the machine was not quiet


def summarise(scores: Sequence[Sweep]) -> Summary:
    """See `evaluation.suites.throughput`."""
    model, *others = scores
    baseline = others[0] if others else None
    return Summary(
        metrics=_metrics(model),
        references=_references(model),
        rows=_rows(model, baseline),
        baseline_metrics=_metrics(baseline) if baseline else None,
        baseline_references=_references(baseline) if baseline else None,
        comparison=_comparison(model, baseline) if baseline else None,
        domains=_domains(model),
        warnings=_warnings(scores),
        files={PLOT_NAME: _plot(scores)},
    )


def seconds_per(texts: int, cell: Cell) -> Interval:
    """Median and range of a cell, scaled to a number of texts; one pass has no range."""
    scaled = [second * texts / cell.texts for second in cell.seconds]
    ends = (min(scaled), max(scaled)) if len(scaled) > 1 else (None, None)
    return Interval(statistics.median(scaled), *ends)


def _metrics(sweep: Sweep) -> dict[str, Interval]:
    here = sweep.of(sweep.device)
    metrics = {}
    for protocol in PROTOCOLS:
        if fastest := best(here, protocol):
            prefix = "" if protocol == "docket" else f"{protocol}_"
            metrics[f"{prefix}{METRIC}"] = seconds_per(100_000, fastest)
    if on_cpu := best(sweep.of("cpu"), "docket"):
        metrics[CPU_METRIC] = seconds_per(200, on_cpu)
    if fastest := best(here, "sorted"):
        metrics["tokens_per_s"] = Interval(fastest.tokens_per_s)
    if fastest := best(here, "docket"):
        metrics |= {"batch_size": Interval(fastest.batch_size), "padding_share": Interval(fastest.padding_share)}
    return metrics


def _references(sweep: Sweep) -> dict[str, dict[str, Interval]]:
    floor = best(sweep.of(sweep.device), LOADER_ONLY)
    return {LOADER_ONLY: {METRIC: seconds_per(100_000, floor)}} if floor else {}


def _comparison(model: Sweep, baseline: Sweep) -> dict[str, Interval]:
    """Differences and ratios; their ends are those of the most and the least favourable pair of passes."""
    here, other = _metrics(model), _metrics(baseline)
    found = {name: _between(here[name], other[name], lambda one, two: one - two) for name in here if name in other and "seconds" in name}
    return found | {"relative_time": _between(here[METRIC], other[METRIC], lambda one, two: one / two - 1)}


def _between(one: Interval, other: Interval, change: Callable[[float, float], float]) -> Interval:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Interval(change(one.value, other.value))
    return Interval(change(one.value, other.value), change(one.low, other.high), change(one.high, other.low))


def _domains(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Each protocol on each device, at its fastest batch size."""
    table: dict[str, dict[str, Any]] = {}
    for device in dict.fromkeys(cell.device for cell in sweep.cells):
        for protocol in (*PROTOCOLS, LOADER_ONLY):
            if fastest := best(sweep.of(device), protocol):
                entry: dict[str, Any] = {"batch_size": fastest.batch_size, "padding": fastest.padding_share}
                entry[METRIC] = seconds_per(100_000, fastest).as_dict()
                how = {"texts": fastest.texts, "attention": sweep.attention[device], "first_pass_s": fastest.first_s}
                table[f"{device} {protocol}"] = entry | {"how": how | _figures(fastest)}
    return table


def _figures(cell: Cell) -> dict[str, Any]:
    return {
        "batch_size": cell.batch_size,
        "tokens_per_s": cell.tokens_per_s if cell.protocol != LOADER_ONLY else None,
        "padding_share": cell.padding_share,
    }


def _rows(model: Sweep, baseline: Sweep | None) -> list[dict[str, Any]]:
    """One per device, protocol and batch size. Times are no scores of items, so `sibol compare` sets figures side by side."""
    others = {cell.id: cell for cell in baseline.cells} if baseline else {}
    rows = []
    for cell in model.cells:
        row: dict[str, Any] = {"id": cell.id, "category": f"{cell.device} {cell.protocol}", "texts": cell.texts, "tokens": cell.tokens}
        row |= {
            "out_of_memory": not cell.seconds,
            "batch_size": cell.batch_size,
            "first_pass_s": cell.first_s,
            "seconds": list(cell.seconds),
        }
        if cell.seconds:
            row |= {METRIC: seconds_per(100_000, cell).value} | _figures(cell)
        other = others.get(cell.id)
        if baseline:
            row[f"baseline_{METRIC}"] = seconds_per(100_000, other).value if other and other.seconds else None
        rows.append(row)
    return rows


def _warnings(scores: Sequence[Sweep]) -> list[str]:
    found = []
    for label, one in zip(("model", "baseline"), scores, strict=False):
        if one.truncated:
            found.append(f"{one.truncated} of {one.texts} texts were cut at {one.max_tokens} tokens for the {label}.")
        if one.left_out:
            found.append(f"Batch sizes {', '.join(map(str, one.left_out))} exceed the {one.texts} texts and were left out ({label}).")
        full = [cell.id for cell in one.cells if not cell.seconds]
        if full:
            found.append(f"The {label} ran out of memory at {', '.join(full)}.")
        wide = [cell.id for cell in one.cells if cell.seconds and max(cell.seconds) > WIDE_SPREAD * min(cell.seconds)]
        if wide:
            found.append(f"Passes of the {label} differ by more than {WIDE_SPREAD} times at {', '.join(wide)}: the machine was not quiet.")
    if len({one.texts for one in scores}) == 1 and scores[0].texts < 100:
        found.append(f"The figures are scaled up from {scores[0].texts} texts.")
    return found


def _plot(scores: Sequence[Sweep]) -> bytes:
    """Seconds over the batch size, both on logarithmic axes; a colour per protocol, dashes for the baseline."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator

    output = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for label, dashes, one in zip(("model", "baseline"), DASHES, scores, strict=False):
            for protocol, colour in zip(PROTOCOLS, COLOURS, strict=False):
                cells = [cell for cell in one.of(one.device) if cell.protocol == protocol and cell.seconds]
                line = [seconds_per(100_000, cell) for cell in cells]
                sizes, name = [cell.batch_size for cell in cells], protocol if len(scores) == 1 else f"{label}: {protocol}"
                axes.plot(sizes, [point.value for point in line], color=colour, dashes=dashes, marker="o", markersize=3, label=name)
                ends = [(point.low or point.value, point.high or point.value) for point in line]
                axes.fill_between(sizes, [low for low, _ in ends], [high for _, high in ends], color=colour, alpha=0.15, linewidth=0)
        sizes = sorted({cell.batch_size for one in scores for cell in one.of(one.device)})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlabel(f"batch size on {scores[0].device}")
        axes.set_ylabel("seconds per 100,000 texts (median, range)")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter(EngFormatter(sep=""))
        axes.tick_params(which="both", labelsize=8)
        figure.legend(frameon=False, loc="outside upper left", ncols=len(scores), handlelength=3.5)
        figure.savefig(output, format="png", metadata={"Software": None})
    return output.getvalue()
