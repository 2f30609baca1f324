"""A comparison as tables: arms, differences, categories, runs, and in what the arms differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.compare import shown_values
from evaluation.report_tables import Cell, Ends, Table
from evaluation.table import LABELS

VERDICTS = {
    "noise": "noise",
    "unclear": "unclear",
    "unknown": "unknown",
}
DETAILS = ("item error", "seed error", "p")
RUN_FIGURES = {
    "steps": "steps",
    "tokens": "tokens",
    "last_loss": "last training loss (nats/token)",
    "last_validation_loss": "last validation loss",
    "best_validation_loss": "best validation loss",
    "last_validation_bits_per_byte": "last validation bits per byte",
    "best_validation_bits_per_byte": "best validation bits per byte",
    "median_tokens_per_s": "median tokens/s",
    "largest_grad_norm": "largest gradient norm",
    "wall_s": "seconds in steps",
    "peak_memory_bytes": "peak memory of a rank (bytes)",
}


def comparison_tables(comparison: dict[str, Any]) -> list[Table]:
    """All tables of a comparison that have rows."""
    tables: list[Table] = []
    for name, suite in zip(suite_names(comparison["suites"]), comparison["suites"], strict=True):
        tables.append(_arms(name, suite))
        tables += difference_tables(name, suite)
    tables += [runs_table(comparison["runs"]), facts_table(comparison["differences"])]
    return [table for table in tables if table.rows]


def suite_names(suites: Sequence[dict[str, Any]]) -> list[str]:
    """Names of files for suites, of which one may be there twice, measured differently."""
    names = [str(suite["suite"]).replace(":", "_").replace("/", "_") for suite in suites]
    return [name if names.count(name) == 1 else f"{name}_{names[: place + 1].count(name)}" for place, name in enumerate(names)]


def difference_tables(name: str, suite: dict[str, Any]) -> list[Table]:
    """Differences of the whole and of the categories; empty without a second arm."""
    metric = LABELS.get(suite["metric"], suite["metric"])
    rows = [_difference((one["from"], one["to"]), one["difference"], suite) for one in suite["comparisons"]]
    categories = [
        _difference((entry["category"], entry["items"], one["from"], one["to"]), entry["difference"], suite)
        for one in suite["comparisons"]
        for entry in one["categories"]
    ]
    better = "negative is better" if suite["lower_is_better"] else "positive is better"
    note = f"Second minus first, paired over {_drawn(suite)}; {better}. Intervals of {suite['confidence']:.0%} are not corrected, "
    columns = ("difference", "interval", "item error", "seed error", "p", "p corrected", "verdict")
    title = f"{suite['suite']}: differences in {metric}"
    return [
        Table(f"{name}_differences", title, ("from", "to", *columns), tuple(rows), (note + _family(len(rows)),), DETAILS),
        Table(
            f"{name}_categories",
            f"{title} by category",
            ("category", "items", "from", "to", *columns),
            tuple(categories),
            (note + _family(len(categories)),),
            (*DETAILS, "items"),
        ),
    ]


def _family(number: int) -> str:
    tests = "the one test of this table" if number == 1 else f"the {number} tests of this table"
    return f"p-values are corrected for {tests} (Holm) and decide: unclear is a difference by its own interval only."


def _difference(head: Sequence[Cell], difference: dict[str, Any], suite: dict[str, Any]) -> tuple[Cell, ...]:
    ends = Ends(difference["low"], difference["high"])
    figures = [difference[key] for key in ("item_error", "seed_error", "p_value", "adjusted_p_value")]
    return (*head, difference["value"], ends, *figures, _verdict(difference, suite["lower_is_better"]))


def _verdict(difference: dict[str, Any], lower_is_better: bool) -> str:
    if difference["verdict"] == "clear":
        return "clear: better" if (difference["value"] < 0) == lower_is_better else "clear: worse"
    return VERDICTS[difference["verdict"]]


def _drawn(suite: dict[str, Any]) -> str:
    """What intervals are over, in words."""
    clusters = suite["clusters"]
    return f"{suite['items']:,} items" if clusters is None else f"{clusters:,} clusters of {suite['items']:,} items"


def _arms(name: str, suite: dict[str, Any]) -> Table:
    metric = LABELS.get(suite["metric"], suite["metric"])
    rows = tuple((arm["label"], arm["seeds"], arm["value"], Ends(arm["low"], arm["high"]), arm["seed_spread"]) for arm in suite["arms"])
    note = f"Mean over seeds; intervals of {suite['confidence']:.0%} over {_drawn(suite)}; spread: standard deviation over seeds."
    if not suite["paired"]:
        note = "Figures and intervals as they stand in the results; nothing is paired."
    columns = ("model", "seeds", metric, "interval", "seed spread")
    return Table(f"{name}_arms", f"{suite['suite']} v{suite['version']}", columns, rows, (note,))


def runs_table(runs: Sequence[dict[str, Any]]) -> Table:
    """One column per run, one row per figure that at least one of them has."""
    rows: list[tuple[Cell, ...]] = [("state", *(run["state"] for run in runs))] if runs else []
    for key, heading in RUN_FIGURES.items():
        values = [(run["figures"] or {}).get(key) for run in runs]
        if any(value is not None for value in values):
            rows.append((heading, *values))
        if key == "tokens" and any(run["bytes"] is not None for run in runs):
            rows.append(("bytes of text", *(run["bytes"] for run in runs)))
    return Table("runs", "Training runs", ("figure", *(run["label"] for run in runs)), tuple(rows), _run_notes(runs))


def _run_notes(runs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    notes = []
    if any(run["state"] != "finished" for run in runs):
        notes.append("A run that is not finished is running, waits for its next job or was interrupted; its folder cannot say which.")
    if len(runs) > 1:
        notes.append(
            "A run's log has no scores of single documents, so these figures have no intervals: evaluate the exports of the runs for those."
            " Across tokenizations only bits per byte can be compared."
        )
    unknown = [run["label"] for run in runs if run["bytes"] is None and run["figures"]]
    if unknown:
        notes.append(
            f"The bytes of text that {', '.join(unknown)} read are not known: the dataset is not there any more, or its tokens are made "
            "or masked while training."
        )
    return tuple(notes)


def facts_table(differences: Sequence[dict[str, Any]]) -> Table:
    """In what the arms differ, the factor under study marked."""
    rows = tuple((one["name"], one["kind"], "yes" if one["factor"] else "no", shown_values(one)) for one in differences)
    return Table("differences", "In what they differ", ("fact", "kind", "under study", "values"), rows)
