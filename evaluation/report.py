"""The report of runs and evaluations: one self-contained HTML page, and its tables as Markdown, CSV and LaTeX.

Everything in it is read from run folders and results.json files; nothing is computed anew but paired differences, categories and
bits per byte of the training loss. Every figure names the file it comes from, with its SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.compare import compare_inputs
from evaluation.compare_facts import run_bytes_per_token
from evaluation.compare_inputs import METRICS_NAME, SETTINGS_NAME, Inputs, Measured, read_inputs
from evaluation.compare_tables import difference_tables, facts_table, runs_table, suite_names
from evaluation.plot import MOST_BARS, Bar, Curve, Figure, bar_figure, curve_figures
from evaluation.report_files import as_json, refuse_foreign, table_files, write_folder
from evaluation.report_tables import Cell, Ends, Table, markdown, markdown_text
from evaluation.table import HIDDEN, LABELS
from nemo_ext.common.errors import DataError

REPORT_SCHEMA = "sibol.report/2"
PAGE_NAME, MARKDOWN_NAME, SUMMARY_NAME = "report.html", "report.md", "summary.json"
EXPECTED_REFERENCES = ("uniform", "majority", "human")


@dataclass
class Section:
    """A part of the page: what it has, and what is missing from it."""

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    legend: tuple[str, ...] = ()
    bars: bool = False


@dataclass
class Sources:
    """Files that figures come from, in the order of their first mention."""

    files: dict[tuple[str, str], str] = field(default_factory=dict)

    def name(self, path: Path | str, sha256: str | None) -> str:
        """The short name under which a file is listed."""
        key = (str(Path(path).absolute()), sha256 or "-")
        return self.files.setdefault(key, f"S{len(self.files) + 1}")

    def table(self) -> Table:
        """The list of all that was named."""
        rows = tuple((name, path, digest) for (path, digest), name in self.files.items())
        return Table("sources", "Where the figures come from", ("source", "file", "SHA-256"), rows)


def write_report(arguments: Sequence[str | Path], out_dir: Path | str, title: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write the report of run folders and results into `out_dir`, and return what summary.json holds.

    Raises DataError when nothing is named or an input is missing or damaged, OutputExistsError when `out_dir` is taken; then
    nothing is written.
    """
    from evaluation.report_page import render_page

    out_dir = Path(out_dir)
    refuse_foreign(out_dir, overwrite, SUMMARY_NAME, REPORT_SCHEMA)
    inputs = read_inputs(arguments)
    if not inputs.runs and not inputs.measured:
        raise DataError("Nothing to report on. Give run folders, or folders that `sibol evaluate` wrote.")
    comparison = compare_inputs(inputs)
    sources = Sources()
    sections = [_training(inputs, comparison, sources), *_suites(inputs, comparison, sources), _differences(comparison)]
    sections.append(Section("Sources", [_models(inputs.measured), sources.table()]))
    title = title or "Report of " + ", ".join(dict.fromkeys([run.label for run in inputs.runs] + [one.label for one in inputs.measured]))
    listed = [{"source": name, "file": path, "sha256": digest} for (path, digest), name in sources.files.items()]
    summary = {"schema": REPORT_SCHEMA, "title": title, "sources": listed, **_figures_of(inputs), "comparison": comparison}
    tables = [table for section in sections for table in section.tables if table.rows]
    figures = {f"figures/{figure.name}.svg": figure.svg for section in sections for figure in section.figures}
    texts = {PAGE_NAME: render_page(title, sections), MARKDOWN_NAME: _markdown(title, sections), SUMMARY_NAME: as_json(summary)}
    write_folder(out_dir, {**table_files(tables), **figures, **texts}, overwrite)
    return summary


def _figures_of(inputs: Inputs) -> dict[str, Any]:
    """What was measured of each model, as results.json has it."""
    measured = [
        {
            "label": one.label,
            "results": str(one.source.path.absolute()),
            "sha256": one.source.sha256,
            "part": one.part,
            "suite": f"{one.suite['name']} v{one.suite['version']}",
            "metrics": one.metrics,
            "references": one.results["references"],
        }
        for one in inputs.measured
    ]
    return {"results": measured}


def _training(inputs: Inputs, comparison: dict[str, Any], sources: Sources) -> Section:
    section = Section("Training", [runs_table(comparison["runs"])])
    if not inputs.runs:
        section.notes.append("No run folder was given, so there are no curves of training.")
    curves = []
    for run in inputs.runs:
        names = [sources.name(run.path / SETTINGS_NAME, run.settings_sha256)] if run.settings else []
        if run.history is None:
            section.notes.append(f"{run.label} has not logged a training step yet, so it has no curves.")
            continue
        names.insert(0, sources.name(run.path / METRICS_NAME, run.history.sha256))
        section.notes.append(f"Curves and figures of {run.label}: {', '.join(names)}.")
        curves.append(Curve(run.label, run.history, run_bytes_per_token(run)))
        if not len(run.history.validation["step"]):
            section.notes.append(f"{run.label} has no validation figures.")
    if curves:
        section.figures, section.legend = curve_figures(curves), tuple(one.label for one in curves)
        section.notes.append("Lines: training, a moving mean where many steps are logged; dots: validation; upright dots: resumes.")
    return section


def _suites(inputs: Inputs, comparison: dict[str, Any], sources: Sources) -> Iterable[Section]:
    """A section per measurement. `comparison` has the same measurements in the same order."""
    if not inputs.measured:
        yield Section("Evaluation", notes=["No results were given. `sibol evaluate` measures an exported model."])
    for name, suite in zip(suite_names(comparison["suites"]), comparison["suites"], strict=True):
        paths = {entry["results"] for arm in suite["arms"] for entry in arm["sources"]}
        members = [one for one in inputs.measured if str(one.source.path.absolute()) in paths]
        section = Section(f"{suite['suite']} v{suite['version']}", [_scores(name, members, sources)], notes=_missing(members))
        section.tables += [table for table in difference_tables(name, suite) if table.rows]
        section.notes += dict.fromkeys(text for one in members for text in one.source.results["warnings"])
        bars = [
            Bar(arm["label"], category, entry["value"], entry["low"], entry["high"])
            for category in suite["arms"][0]["categories"]
            for arm in suite["arms"]
            for entry in [arm["categories"][category]]
        ]
        if bars:
            section.legend, section.bars = tuple(arm["label"] for arm in suite["arms"]), True
            metric = LABELS.get(suite["metric"], suite["metric"])
            section.figures.append(bar_figure(f"{name}_categories", f"{suite['suite']} by category", metric, bars, section.legend))
            section.tables.append(_categories(name, suite, metric))
            if len(bars) > MOST_BARS:
                section.notes.append(f"The figure has the first {MOST_BARS} of {len(bars)} bars; the table has all.")
        rows_files = dict.fromkeys((one.source.rows_path, one.source.results["per_document"]["sha256"]) for one in members)
        if suite["paired"]:
            section.notes.append(f"Differences and categories are computed from {', '.join(sources.name(*one) for one in rows_files)}.")
        else:
            section.notes.append("There are no scores of single items, so differences and categories are not shown.")
        yield section


def _scores(name: str, members: Sequence[Measured], sources: Sources) -> Table:
    """Models, and below each what a trivial model scores; a reference that all share stands once, at the end."""
    suite, settings = members[0].suite, members[0].source.results["settings"]
    primary = suite["primary_metric"]
    others = [key for key in dict.fromkeys(key for one in members for key in one.metrics) if key != primary and key not in HIDDEN]
    references = [one.results["references"] for one in members]
    shared = [key for key in references[0] if all(one.get(key) == references[0][key] for one in references)]

    def row(label: str, metrics: dict[str, Any], one: Measured) -> tuple[Cell, ...]:
        entry = metrics.get(primary, {})
        rest = [metrics.get(key, {}).get("value") for key in others]
        return (
            label,
            entry.get("value"),
            Ends(entry.get("low"), entry.get("high")),
            *rest,
            sources.name(one.source.path, one.source.sha256),
        )

    rows = []
    for one in members:
        rows.append(row(one.label, one.metrics, one))
        rows += [row(f"{key} ({one.label})", metrics, one) for key, metrics in one.results["references"].items() if key not in shared]
    rows += [row(key, references[0][key], members[0]) for key in shared]
    direction = "lower is better" if suite["lower_is_better"] else "higher is better"
    made = settings.get("interval", "bootstrap over items")
    of = f" of {settings['confidence']:.0%}" if "bootstrap" in made else ""
    note = f"{direction.capitalize()}. Intervals{of}: {made}."
    columns = ("model", LABELS.get(primary, primary), "interval", *(LABELS.get(key, key) for key in others), "source")
    data = members[0].source.results["data"]
    title = f"{suite['name']} v{suite['version']} on {data['documents']:,} items"
    return Table(f"{name}_scores", title, columns, tuple(rows), (note,))


def _missing(members: Sequence[Measured]) -> list[str]:
    """Baselines that a reader will look for."""
    found = []
    if not any(one.source.results["baseline"] for one in members):
        found.append("No untrained or base model was measured beside these; `sibol evaluate --baseline` does that.")
    names = " ".join(name for one in members for name in one.results["references"])
    absent = [name for name in EXPECTED_REFERENCES if name not in names]
    if absent and not members[0].suite["lower_is_better"]:
        found.append(f"The results have no {', '.join(absent)} figure to compare with.")
    return found


def _categories(name: str, suite: dict[str, Any], metric: str) -> Table:
    rows = tuple(
        (category, arm["label"], entry["items"], entry["value"], Ends(entry["low"], entry["high"]))
        for category in suite["arms"][0]["categories"]
        for arm in suite["arms"]
        for entry in [arm["categories"][category]]
    )
    return Table(f"{name}_by_category", f"{suite['suite']} by category", ("category", "model", "items", metric, "interval"), rows)


def _differences(comparison: dict[str, Any]) -> Section:
    """In what the compared models differ besides what is under study."""
    table = facts_table(comparison["differences"])
    notes = [*comparison["warnings"], *comparison["unknown"]]
    return Section(
        "Are they comparable?", [table] if table.rows else [], notes=notes or ["No difference is known, and nothing is unknown."]
    )


def _models(measured: Sequence[Measured]) -> Table:
    rows: dict[tuple[Cell, ...], None] = {}
    for one in measured:
        step = (one.model.get("provenance") or {}).get("step")
        data = one.source.results["data"]
        rows[(one.label, step, one.model["path"], one.model["weights_sha256"], data.get("path"), data["sha256"])] = None
    columns = ("model", "trained steps", "folder", "weights SHA-256", "data", "data SHA-256")
    return Table("models", "What was measured", columns, tuple(rows))


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {markdown_text(title)}\n"]
    for section in sections:
        parts.append(f"## {markdown_text(section.title)}\n")
        parts += [f"![{markdown_text(figure.alt)}](figures/{figure.name}.svg)\n" for figure in section.figures]
        parts += [markdown(table, level=3) for table in section.tables if table.rows]
        parts += [f"- {markdown_text(note)}" for note in section.notes] + ([""] if section.notes else [])
    return "\n".join(parts)
