"""The report of a run: loss curve, training figures, evaluation results before and after, as Markdown, PNG and JSON.

Everything in it is read from metrics.jsonl and results.json files; nothing is computed anew but paired differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.history import RunHistory, read_history
from evaluation.plot import plot_loss
from evaluation.stored import StoredResults, paired_difference, read_results
from evaluation.table import LABELS, interval, number
from nemo_ext.common.files import atomic_file, write_json

REPORT_SCHEMA = "sibol.report/1"
REPORT_NAME, PLOT_NAME, SUMMARY_NAME = "report.md", "loss.png", "summary.json"


def write_report(run_dir: Path | str, results: Sequence[Path | str], out_dir: Path | str) -> dict[str, Any]:
    """Write report.md, loss.png and summary.json into `out_dir`, in place of earlier ones, and return the summary.

    run_dir: run folder with metrics.jsonl. results: results.json files, the first of which is what the others are compared
    with (say, the model before training). Raises DataError when an input is missing or damaged, before anything is written.
    """
    run_dir, out_dir = Path(run_dir), Path(out_dir)
    history = read_history(run_dir)
    stored = [read_results(path) for path in results]
    comparisons = [_compare(stored[0], other) for other in stored[1:]]
    summary = {
        "schema": REPORT_SCHEMA,
        "run": str(run_dir.absolute()),
        "training": history.summary(),
        "results": [_result_summary(one) for one in stored],
        "comparisons": comparisons,
    }
    plot_loss(history, out_dir / PLOT_NAME, f"{run_dir.absolute().name}: loss over training tokens")
    write_json(out_dir / SUMMARY_NAME, summary)
    with atomic_file(out_dir / REPORT_NAME) as handle:
        handle.write("\n".join(_markdown(run_dir, history, stored, comparisons)) + "\n")
    return summary


def _result_summary(stored: StoredResults) -> dict[str, Any]:
    suite, results = stored.results["suite"], stored.results
    return {
        "label": stored.label,
        "path": str(stored.path.absolute()),
        "suite": f"{suite['name']} v{suite['version']}",
        "metric": suite["primary_metric"],
        **stored.primary,
        "model": results["model"]["path"],
        "weights_sha256": results["model"]["weights_sha256"],
        "data_sha256": results["data"]["sha256"],
    }


def _compare(first: StoredResults, other: StoredResults) -> dict[str, Any]:
    difference = paired_difference(first, other)
    return {"from": first.label, "to": other.label, "difference": None if difference is None else difference.as_dict()}


def _markdown(run_dir: Path, history: RunHistory, stored: list[StoredResults], comparisons: list[dict[str, Any]]) -> Iterable[str]:
    yield from (f"# Report of {run_dir.absolute().name}", "", f"![Loss over training tokens]({PLOT_NAME})", "", "## Training", "")
    yield from _table(("figure", "value"), _training_rows(history.summary()))
    if stored:
        yield from ("", "## Evaluation", "")
        yield from _evaluation(stored)
        yield ""
        yield from (_sentence(comparison, stored) for comparison in comparisons)
        yield from ("", "### What was measured", "")
        yield from _sources(stored)


def _training_rows(figures: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "optimizer steps", number(figures["steps"])
    yield "tokens", f"{figures['tokens']:,} ({figures['tokens_per_step']:,.0f} per step)"
    yield "training loss, first and last logged step", f"{figures['first_loss']:.4f}, {figures['last_loss']:.4f} nats per token"
    if figures["last_validation_loss"] is not None:
        yield "validation loss, last and best", _pair(figures, "validation_loss") + " nats per token"
    if figures["last_validation_bits_per_byte"] is not None:
        yield "validation, last and best", _pair(figures, "validation_bits_per_byte") + " bits per byte"
    optional = {
        "median_tokens_per_s": ("median speed", lambda value: f"{value:,.0f} tokens per second"),
        "wall_s": ("time in training steps", lambda value: f"{value:,.0f} s"),
        "peak_memory_bytes": ("peak memory of a rank", lambda value: f"{value / 2**30:,.2f} GiB"),
        "largest_grad_norm": ("largest gradient norm", lambda value: f"{value:.3f}"),
    }
    for name, (label, show) in optional.items():
        if figures[name] is not None:
            yield label, show(figures[name])
    if figures["resumed_after_steps"]:
        yield "resumed after steps", ", ".join(map(str, figures["resumed_after_steps"]))


def _pair(figures: dict[str, Any], name: str) -> str:
    return f"{figures[f'last_{name}']:.4f}, {figures[f'best_{name}']:.4f}"


def _evaluation(stored: list[StoredResults]) -> Iterable[str]:
    """One row per model; the trivial models stand in columns, because they depend on the vocabulary of the model in the row."""
    primary = stored[0].results["suite"]["primary_metric"]
    references = sorted({name for one in stored for name in one.results["references"]})
    rows = []
    for one in stored:
        suite, metrics, trivial = one.results["suite"], one.results["metrics"], one.results["references"]
        cells = [one.label, f"{suite['name']} v{suite['version']}", number(one.primary["value"]), interval(one.primary)]
        cells += [number(trivial.get(name, {}).get(primary, {}).get("value")) for name in references]
        rows.append((*cells, number(metrics.get("token_perplexity", {}).get("value"))))
    confidence = f"{stored[0].results['settings']['confidence']:.0%} interval"
    headings = ("model", "suite", LABELS.get(primary, primary), confidence, *(f"{name} distribution" for name in references))
    yield from _table((*headings, "token perplexity"), rows)


def _sentence(comparison: dict[str, Any], stored: list[StoredResults]) -> str:
    difference, names = comparison["difference"], f"From `{comparison['from']}` to `{comparison['to']}`"
    if difference is None:
        return f"{names}: not comparable, because the two results come from different suites, texts or scoring rules."
    verdict = "of unknown certainty, from a single document"
    if difference["low"] is not None:
        clear = difference["low"] > 0 or difference["high"] < 0
        verdict = "the interval excludes zero" if clear else "the interval includes zero, so this is no clear change"
    shown = (
        f"{difference['value']:+.4f} bits per byte, {interval(difference)} paired over {stored[0].results['data']['documents']:,} documents"
    )
    return f"{names}: {shown}: {verdict}."


def _sources(stored: list[StoredResults]) -> Iterable[str]:
    rows = []
    for one in stored:
        data, model = one.results["data"], one.results["model"]
        split = f", split {data['split']}" if data["split"] else ""
        text = f"{data['documents']:,} documents, {data['bytes']:,} bytes{split} (`{data['sha256'][:12]}`)"
        rows.append((one.label, f"`{model['weights_sha256'][:12]}`", f"{model['context_tokens']:,}, {model['stride_tokens']:,}", text))
    yield from _table(("model", "weights SHA-256", "context, stride (tokens)", "text"), rows)
    for one in stored:
        yield from (f"\nWarning ({one.label}): {warning}" for warning in one.results["warnings"])


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|" + " --- |" * len(headings)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
