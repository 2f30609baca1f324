"""A results.json as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

HIDDEN = ("byte_perplexity",)  # in results.json; in the table it would say the bits per byte again
LABELS = {
    "bits_per_byte": "bits per byte",
    "token_perplexity": "token perplexity",
    "bytes_per_token": "bytes per token",
    "relative_bits": "relative difference",
}


def number(value: float | None) -> str:
    """Five significant digits, thousands separated; a dash for what is unknown."""
    if value is None:
        return "-"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10_000 else f"{value:#.5g}"


def interval(entry: Mapping[str, float | None]) -> str:
    """`[low, high]`, or a dash."""
    return "-" if entry.get("low") is None else f"[{number(entry['low'])}, {number(entry['high'])}]"


def render(results: Mapping[str, Any]) -> Group:
    """Metrics with their intervals, beside them the baseline's; the domains; the warnings."""
    parts: list[Any] = [_metrics(results)]
    if results["domains"]:
        parts.append(_domains(results["domains"], results["suite"]["primary_metric"]))
    parts += [Text(f"Warning: {text}", style="yellow") for text in results["warnings"]]
    return Group(*parts)


def _heading(name: str) -> str:
    return LABELS.get(name, name).replace(" ", "\n", 1)


def _metrics(results: Mapping[str, Any]) -> Table:
    suite, data = results["suite"], results["data"]
    primary = suite["primary_metric"]
    table = Table(
        title=f"{suite['name']} v{suite['version']} on {data['documents']:,} documents, {data['bytes']:,} bytes",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    table.add_column(_heading(primary), justify="right", no_wrap=True)
    table.add_column(f"{results['settings']['confidence']:.0%} interval", justify="right", no_wrap=True)
    others = [name for name in results["metrics"] if name != primary and name not in HIDDEN]
    for name in others:
        table.add_column(_heading(name), justify="right", no_wrap=True)
    for label, metrics in _rows(results):
        cells = [number(metrics[name]["value"]) if name in metrics else "" for name in others]
        table.add_row(label, number(metrics[primary]["value"]), interval(metrics[primary]), *cells)
    return table


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each model with the trivial models below it, which depend on its vocabulary; the difference last."""
    yield "model", results["metrics"]
    yield from ((f"  {name}", metrics) for name, metrics in results["references"].items())
    if baseline := results["baseline"]:
        yield "baseline", baseline["metrics"]
        yield from ((f"  {name}", metrics) for name, metrics in baseline["references"].items())
        yield "difference", baseline["difference"]


def _domains(domains: Mapping[str, Mapping[str, Any]], primary: str) -> Table:
    """Per domain its counts, then the metric with its interval; other metrics stand in results.json."""
    counts = [name for name, value in next(iter(domains.values())).items() if not isinstance(value, Mapping)]
    table = Table(title="By domain", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("domain")
    for heading in (*counts, LABELS.get(primary, primary), "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, entry in domains.items():
        value = entry[primary]
        table.add_row(name, *(number(entry[count]) for count in counts), number(value["value"]), interval(value))
    return table
