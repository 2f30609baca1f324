"""A results.json as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

MOST_COLUMNS = 3  # of metrics beside the primary one; what has more gets a table of its own
HIDDEN = ("byte_perplexity",)  # in results.json; in the table it would say the bits per byte again
LABELS = {
    "bits_per_byte": "bits per byte",
    "token_perplexity": "token perplexity",
    "bytes_per_token": "bytes per token",
    "relative_bits": "relative difference",
    "wasserstein": "Wasserstein-1, stated scale",
    "wasserstein_human_range": "Wasserstein-1, human range",
    "strict_f1": "strict F1",
    "strict_precision": "strict precision",
    "strict_recall": "strict recall",
    "strict_f1_document_macro": "strict F1, document macro",
    "fuzzy_f1": "fuzzy F1",
    "fuzzy_precision": "fuzzy precision",
    "fuzzy_recall": "fuzzy recall",
    "fuzzy_f1_document_macro": "fuzzy F1, document macro",
    "seconds_per_100k_texts": "seconds per 100k texts",
    "loader_free_seconds_per_100k_texts": "seconds, loader-free",
    "sorted_seconds_per_100k_texts": "seconds, sorted by length, loader-free",
    "padding_share": "share of padding",
    "batch_size": "fastest batch size",
    "cpu_seconds_per_200_texts": "CPU seconds per 200",
    "tokens_per_s": "tokens per second",
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
    if len(_others(results)) > MOST_COLUMNS:
        parts.append(_other_metrics(results))
    if results["domains"]:
        parts.append(_domains(results["domains"], results["suite"]["primary_metric"]))
    parts += [Text(f"Warning: {text}", style="yellow") for text in results["warnings"]]
    return Group(*parts)


def _heading(name: str) -> str:
    return _label(name).replace(" ", "\n", 1)


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))  # with spaces it wraps, and is not cut


def _metrics(results: Mapping[str, Any]) -> Table:
    suite, data = results["suite"], results["data"]
    primary = suite["primary_metric"]
    table = Table(
        title=f"{suite['name']} v{suite['version']} on {data['documents']:,} documents, {data['bytes']:,} bytes",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    table.add_column(_heading(primary), justify="right", no_wrap=True)
    spread = f"{results['settings']['confidence']:.0%} interval" if "bootstrap" in results["settings"]["interval"] else "range"
    table.add_column(spread, justify="right", no_wrap=True)
    others = _others(results)
    others = others if len(others) <= MOST_COLUMNS else []
    for name in others:
        table.add_column(_heading(name), justify="right", no_wrap=True)
    for label, metrics in _rows(results):
        cells = [number(metrics[name]["value"]) if name in metrics else "" for name in others]
        shown = metrics.get(primary, {"value": None})  # published figures may be of another metric
        table.add_row(label, number(shown["value"]), interval(shown), *cells)
    return table


def _others(results: Mapping[str, Any]) -> list[str]:
    """Metrics beside the primary one."""
    return [name for name in results["metrics"] if name != results["suite"]["primary_metric"] and name not in HIDDEN]


def _other_metrics(results: Mapping[str, Any]) -> Table:
    """A row per metric, where they are too many for columns."""
    table = Table(title="Other metrics", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    rows = list(_rows(results))
    for label, _ in rows:
        table.add_column(Text(label.strip()), justify="right")
    for name in _others(results):
        table.add_row(_label(name), *(number(metrics[name]["value"]) if name in metrics else "" for _, metrics in rows))
    return table


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each model with the trivial models below it, which depend on its vocabulary; the difference last."""
    yield "model", results["metrics"]
    yield from ((f"  {name}", metrics) for name, metrics in results["references"].items())
    if baseline := results["baseline"]:
        yield "baseline", baseline["metrics"]
        own = {name: metrics for name, metrics in baseline["references"].items() if metrics != results["references"].get(name)}
        yield from ((f"  {name}", metrics) for name, metrics in own.items())
        yield "difference", baseline["difference"]


def _domains(domains: Mapping[str, Mapping[str, Any]], primary: str) -> Table:
    """Per domain its counts, then the metric with its interval; other metrics stand in results.json."""
    counts = [name for name, value in next(iter(domains.values())).items() if not isinstance(value, Mapping)]
    table = Table(title="By domain", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("domain")
    for heading in (*counts, LABELS.get(primary, primary), "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, entry in domains.items():
        value = entry.get(primary, {"value": None})
        table.add_row(Text(name), *(number(entry.get(count)) for count in counts), number(value["value"]), interval(value))
    return table
