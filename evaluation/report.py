"""The report of a run: loss curve, training figures, evaluation results before and after, as Markdown, PNG and JSON.

Everything in it is read from metrics.jsonl and results.json files; nothing is computed anew but paired differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.history import RunHistory, read_history
from evaluation.plot import plot_loss
from evaluation.stored import StoredResults, paired_difference, read_results
from evaluation.table import LABELS, interval, number
from nemo_ext.common.files import atomic_file, write_json

REPORT_SCHEMA = "sibol.report/1"
REPORT_NAME, PLOT_NAME, SUMMARY_NAME = "report.md", "loss.png", "summary.json"


@dataclass(frozen=True)
class Measured:
    """One model in one results.json, as the model or as the baseline, under the label it has in the report."""

    label: str
    source: StoredResults
    model: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    references: dict[str, dict[str, dict[str, float | None]]]

    @property
    def suite(self) -> dict[str, Any]:
        """Name, version and primary metric of what was measured."""
        suite: dict[str, Any] = self.source.results["suite"]
        return suite

    @property
    def primary(self) -> dict[str, float | None]:
        """Value and interval of the suite's primary metric."""
        return self.metrics[self.suite["primary_metric"]]

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "label": self.label,
            "results": str(self.source.path.absolute()),
            "suite": f"{self.suite['name']} v{self.suite['version']}",
            "metric": self.suite["primary_metric"],
            **self.primary,
            "model": self.model["path"],
            "weights_sha256": self.model["weights_sha256"],
            "data_sha256": self.source.results["data"]["sha256"],
        }


def write_report(run_dir: Path | str, results: Sequence[Path | str], out_dir: Path | str) -> dict[str, Any]:
    """Write report.md, loss.png and summary.json into `out_dir`, in place of earlier ones, and return the summary.

    run_dir: run folder with metrics.jsonl. results: results.json files; a baseline in one of them is shown before its model, and
    every file after the first is compared with the first. Models go by the names of their folders. Raises DataError when an
    input is missing or damaged, before anything is written.
    """
    run_dir, out_dir = Path(run_dir), Path(out_dir)
    history = read_history(run_dir)
    measured = _measured([read_results(path) for path in results])
    comparisons = _comparisons(measured)
    summary = {
        "schema": REPORT_SCHEMA,
        "run": str(run_dir.absolute()),
        "training": history.summary(),
        "results": [one.as_dict() for one in measured],
        "comparisons": comparisons,
    }
    plot_loss(history, out_dir / PLOT_NAME, f"{run_dir.absolute().name}: loss over training tokens")
    write_json(out_dir / SUMMARY_NAME, summary)
    with atomic_file(out_dir / REPORT_NAME) as handle:
        handle.write("\n".join(_markdown(run_dir, history, measured, comparisons)) + "\n")
    return summary


def _measured(stored: Sequence[StoredResults]) -> list[Measured]:
    """Baselines before their models. Equal names of different models get the name of the folder around them, too."""
    found = []
    for one in stored:
        parts = [one.results["baseline"], one.results] if one.results["baseline"] else [one.results]
        found += [Measured("", one, part["model"], part["metrics"], part["references"]) for part in parts]
    paths = {one.model["path"]: Path(one.model["path"]) for one in found}
    names = Counter(path.name for path in paths.values())
    labels = {key: path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}" for key, path in paths.items()}
    return [replace(one, label=labels[one.model["path"]]) for one in found]


def _comparisons(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Baseline against model within a file, and the model of the first file against that of each later one."""
    found = []
    models = [one for one in measured if one.model is one.source.results["model"]]
    for baseline in measured:
        if baseline not in models:
            model = next(one for one in models if one.source is baseline.source)
            difference = baseline.source.results["baseline"]["difference"].get(model.suite["primary_metric"])
            found.append(_comparison(baseline, model, difference))
    for other in models[1:]:
        paired = paired_difference(models[0].source, other.source)
        found.append(_comparison(models[0], other, paired.as_dict() if paired else None))
    return found


def _comparison(first: Measured, second: Measured, difference: dict[str, float | None] | None) -> dict[str, Any]:
    metric = first.suite["primary_metric"]
    return {"from": first.label, "to": second.label, "metric": metric, "documents": first.source.documents, "difference": difference}


def _markdown(run_dir: Path, history: RunHistory, measured: list[Measured], comparisons: list[dict[str, Any]]) -> Iterable[str]:
    yield from (f"# Report of {run_dir.absolute().name}", "", f"![Loss over training tokens]({PLOT_NAME})", "", "## Training", "")
    yield from _table(("figure", "value"), _training_rows(history.summary()))
    if measured:
        yield from ("", "## Evaluation", "")
        yield from _evaluation(measured)
        yield from (f"\n{_sentence(comparison)}" for comparison in comparisons)
        yield from ("", "### What was measured", "")
        yield from _sources(measured)
        warnings = dict.fromkeys(warning for one in measured for warning in one.source.results["warnings"])
        yield from (f"\nWarning: {warning}" for warning in warnings)


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


def _evaluation(measured: list[Measured]) -> Iterable[str]:
    """One row per model; the trivial models stand in columns, because they depend on the vocabulary of the model in the row."""
    primary = measured[0].suite["primary_metric"]
    references = sorted({name for one in measured for name in one.references})
    rows = []
    for one in measured:
        cells = [one.label, f"{one.suite['name']} v{one.suite['version']}", number(one.primary["value"]), interval(one.primary)]
        cells += [number(one.references.get(name, {}).get(primary, {}).get("value")) for name in references]
        rows.append((*cells, number(one.metrics.get("token_perplexity", {}).get("value"))))
    confidence = f"{measured[0].source.results['settings']['confidence']:.0%} interval"
    headings = ("model", "suite", LABELS.get(primary, primary), confidence, *(f"{name} distribution" for name in references))
    yield from _table((*headings, "token perplexity"), rows)


def _sentence(comparison: dict[str, Any]) -> str:
    difference, names = comparison["difference"], f"From `{comparison['from']}` to `{comparison['to']}`"
    if difference is None:
        return f"{names}: not comparable, because the results come from different suites, texts or scoring rules."
    verdict = "of unknown certainty, from a single document"
    if difference["low"] is not None:
        clear = difference["low"] > 0 or difference["high"] < 0
        verdict = "the interval excludes zero" if clear else "the interval includes zero, so this is no clear change"
    metric = LABELS.get(comparison["metric"], comparison["metric"])
    shown = f"{difference['value']:+.4f} {metric}, {interval(difference)} paired over {comparison['documents']:,} documents"
    return f"{names}: {shown}; {verdict}."


def _sources(measured: list[Measured]) -> Iterable[str]:
    rows = []
    for one in measured:
        data, model = one.source.results["data"], one.model
        split = f", split {data['split']}" if data["split"] else ""
        text = f"{data['documents']:,} documents, {data['bytes']:,} bytes{split} (`{data['sha256'][:12]}`)"
        step = (model["provenance"] or {}).get("step")
        windows = f"{model['context_tokens']:,}, {model['stride_tokens']:,}"
        rows.append((one.label, "-" if step is None else f"{step:,}", f"`{model['weights_sha256'][:12]}`", windows, text))
    yield from _table(("model", "trained steps", "weights SHA-256", "context, stride (tokens)", "text"), rows)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|" + " --- |" * len(headings)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
