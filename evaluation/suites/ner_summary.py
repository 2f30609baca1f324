"""From predicted entities to figures: precision, recall and F1, strict and fuzzy, with intervals over documents.

- micro: over all mentions, F1 = 2 TP / (predicted + right). Words of a document are not independent, so documents are drawn.
- document macro: the mean over documents of their F1. As in the HIPE scorer a document counts only if it has mentions and some
  were predicted, which spares a model the documents where it finds nothing; `documents_left_out` says how many those are.
- The score of a document in per_document.jsonl is what it adds to the strict micro F1 to first order,
      F1 + N / (predicted + right) * (2 TP_d - F1 * (predicted_d + right_d)),
  so that the mean over the N documents is the F1 itself and their spread is that of its linearised ratio (Taylor linearisation,
  Woodruff 1971, doi:10.1080/01621459.1971.10482279). That is what makes a micro F1 comparable item by item.
- By noise: only words whose mention was read with that share of wrong characters (LED), and words without one, as in the HIPE
  scorer; a wrong prediction on other words therefore counts in every part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evaluation.metrics.entities import Entity, fuzzy_matches, restrict, strict_matches
from evaluation.statistics import Bootstrap, FloatArray, Interval
from evaluation.suites import Settings, Summary
from evaluation.suites.ner_data import NerItems, NerOptions, find_names, period
from evaluation.suites.ner_predict import Found, Predictions, as_lines

PREDICTIONS_NAME = "predictions.tsv"
FEW_DOCUMENTS = 20  # with fewer, a percentile bootstrap is too narrow
STRICT, FUZZY, PREDICTED, RIGHT, STRICT_F1, FUZZY_F1, BOTH = range(7)  # columns of the counts of a document
WIDTH = 7
NOISE = ((0.0, 0.0), (0.001, 0.1), (0.1, 0.3), (0.3, 1.1))  # the parts that HIPE 2020 and 2022 report, the upper end not included
# Strict and fuzzy micro F1, NE-COARSE-LIT, of the best system and of the neural baseline: HIPE-2022 overview, ranking files.
PUBLISHED = {
    ("hipe2020", "en"): ((0.620, 0.788), (0.477, 0.623)),
    ("topres19th", "en"): ((0.787, 0.838), (0.764, 0.816)),
    ("ajmc", "en"): ((0.854, 0.910), (0.736, 0.828)),
}
Metrics = dict[str, Interval]
Statistic = Callable[[FloatArray], Any]


def count(gold: Sequence[Entity], predicted: Sequence[Entity], misplaced: Sequence[str] = (), kind: str | None = None) -> list[float]:
    """The columns of one document, of one type or of all; `misplaced` predictions are wrong wherever they are."""

    def of_kind(entities: Sequence[Entity]) -> int:
        return sum(kind in (None, entity.type) for entity in entities)

    strict, fuzzy, right = (of_kind(some) for some in (strict_matches(gold, predicted), fuzzy_matches(gold, predicted), gold))
    total = of_kind(predicted) + sum(kind in (None, label) for label in misplaced)
    both = right > 0 and total > 0
    scores = [2 * hits / (total + right) if both else 0.0 for hits in (strict, fuzzy)]
    return [strict, fuzzy, total, right, *scores, both]


def counts(items: NerItems, found: Sequence[Found], kind: str | None = None) -> FloatArray:
    """`[documents, WIDTH]` of all entities, or of those of a type."""
    rows = [count(gold, one.entities, one.misplaced, kind) for gold, one in zip(items.gold, found, strict=True)]
    return np.array(rows, dtype=np.float64)


def summarise(predictions: Sequence[Predictions], options: NerOptions, settings: Settings) -> Summary:
    """All figures of a model, and against a second one the paired differences."""
    model, *others = predictions
    items = model.items
    tables = [counts(items, one.found) for one in predictions]
    bootstrap = _bootstrap(np.concatenate(tables, axis=1), settings)
    references = _references(items, options, settings)
    metrics = _metrics(bootstrap)
    return Summary(
        metrics=metrics,
        references=references,
        rows=_rows(items, options, tables),
        baseline_metrics=_metrics(_bootstrap(tables[1], settings)) if others else None,
        baseline_references=references if others else None,
        comparison=_differences(bootstrap) if others else None,
        domains={"all": _entry(tables[0], metrics), **_parts(model, tables[0], options, settings)},
        warnings=_warnings(predictions, tables),
        files={PREDICTIONS_NAME: as_lines(model)},
    )


def _bootstrap(columns: FloatArray, settings: Settings) -> Bootstrap:
    return Bootstrap(np.column_stack([columns, np.ones(len(columns))]), settings.resamples, settings.confidence, settings.seed)


def _share(above: FloatArray, below: FloatArray) -> Any:
    """`above / below`, 0 where nothing is below: precision of no prediction, F1 of neither mentions nor predictions."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)


def _ratio(above: int, below: tuple[int, ...], times: int = 1) -> Statistic:
    """`times * above / sum of below`, of sums of columns."""
    return lambda sums: _share(times * sums[..., above], sums[..., list(below)].sum(axis=-1))


def _statistics(offset: int) -> dict[str, Statistic]:
    """Metrics as functions of the sums of columns, those of the model that begins at `offset`."""
    predicted, right, both = PREDICTED + offset, RIGHT + offset, BOTH + offset
    found: dict[str, Statistic] = {}
    for name, hits, macro in (("strict", STRICT + offset, STRICT_F1 + offset), ("fuzzy", FUZZY + offset, FUZZY_F1 + offset)):
        found[f"{name}_f1"] = _ratio(hits, (predicted, right), times=2)
        found[f"{name}_precision"] = _ratio(hits, (predicted,))
        found[f"{name}_recall"] = _ratio(hits, (right,))
        found[f"{name}_f1_document_macro"] = _ratio(macro, (both,))
    return found


def _difference(first: Statistic, second: Statistic) -> Statistic:
    return lambda sums: first(sums) - second(sums)


def _metrics(bootstrap: Bootstrap) -> Metrics:
    return {name: bootstrap.interval(statistic) for name, statistic in _statistics(0).items()}


def _differences(bootstrap: Bootstrap) -> Metrics:
    """Of the model minus the baseline."""
    pairs = zip(_statistics(0).items(), _statistics(WIDTH).values(), strict=True)
    return {name: bootstrap.interval(_difference(first, second)) for (name, first), second in pairs}


def _references(items: NerItems, options: NerOptions, settings: Settings) -> dict[str, Metrics]:
    """`majority` calls every word outside; `known_names` finds the names of the training file; published figures for orientation."""
    references = {"majority": {name: Interval(0.0) for name in _statistics(0)}}
    if items.known_names is not None:
        known = items.known_names
        table = counts(items, [Found(find_names(document, known)) for document in items.tagged])
        references["known_names"] = _metrics(_bootstrap(table, settings))
    facts = {(document.facts.get("dataset", ""), document.facts.get("language", "")) for document in items.tagged}
    of_test = all("test" in re.split(r"[-_.]", document.file.name) for document in items.tagged)  # nothing in HIPE's files says it
    place = facts.pop() if len(facts) == 1 else None
    if place in PUBLISHED and of_test and options.column is None:
        for name, (strict, fuzzy) in zip(("best", "baseline"), PUBLISHED[place], strict=True):
            key = f"HIPE-2022 {name} on {place[0]}-{place[1]} test, published"
            references[key] = {"strict_f1": Interval(strict), "fuzzy_f1": Interval(fuzzy)}
    return references


def _rows(items: NerItems, options: NerOptions, tables: Sequence[FloatArray]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for document in items.tagged:
        row: dict[str, Any] = {"id": document.id, "words": len(document.words)}
        if (dated := period(document, options.period_years)) is not None:
            row["period"] = dated
        rows.append(row)
    for prefix, table in zip(("", "baseline_"), tables, strict=False):
        for row, score, one in zip(rows, _linearised(table), table.tolist(), strict=True):
            row |= {f"{prefix}score": float(score), f"{prefix}strict_f1": one[STRICT_F1], f"{prefix}fuzzy_f1": one[FUZZY_F1]}
            row |= {"mentions": int(one[RIGHT]), f"{prefix}predicted": int(one[PREDICTED])}
            row |= {f"{prefix}strict_true_positives": int(one[STRICT]), f"{prefix}fuzzy_true_positives": int(one[FUZZY])}
    return rows


def _linearised(table: FloatArray) -> FloatArray:
    """What each document adds to the strict micro F1, see the module's text; their mean is the F1."""
    hits, mentions = 2 * table[:, STRICT], table[:, PREDICTED] + table[:, RIGHT]
    value = hits.sum() / mentions.sum()
    scores: FloatArray = value + len(table) / mentions.sum() * (hits - value * mentions)
    return scores


def _parts(predictions: Predictions, counted: FloatArray, options: NerOptions, settings: Settings) -> dict[str, dict[str, Any]]:
    """By type, noise and period: counts, and F1 with its interval."""
    items, found = predictions.items, predictions.found
    table: dict[str, dict[str, Any]] = {}

    def add(name: str, part: FloatArray) -> None:
        table[name] = _entry(part, _metrics(_bootstrap(part, settings)))

    predicted = {entity.type for one in found for entity in one.entities} | {label for one in found for label in one.misplaced}
    for kind in sorted({*items.types, *predicted}):
        add(f"type {kind}", counts(items, found, kind))
    if any(distance is not None for document in items.tagged for distance in document.distances):
        for low, high in NOISE:
            name = f"noise {low:g}" if low == high else f"noise {low:g}-{high:g}"
            add(name, _counts_of_noise(items, found, low, high))
    periods = np.array([period(document, options.period_years) or "" for document in items.tagged])
    for name in sorted(set(periods.tolist())) if any(periods) else []:
        add(f"period {name or '(no date)'}", counted[periods == name])
    return table


def _counts_of_noise(items: NerItems, found: Sequence[Found], low: float, high: float) -> FloatArray:
    rows = []
    for document, gold, one in zip(items.tagged, items.gold, found, strict=True):
        kept = [distance is None or low <= distance < high or low == distance == high for distance in document.distances]
        rows.append(count(restrict(gold, kept), restrict(one.entities, kept), one.misplaced))
    return np.array(rows, dtype=np.float64)


def _entry(table: FloatArray, metrics: Metrics) -> dict[str, Any]:
    strict, fuzzy, predicted, right = (int(value) for value in table[:, : RIGHT + 1].sum(axis=0))
    entry: dict[str, Any] = {"documents": len(table), "mentions": right, "predicted": predicted}
    for name, hits in (("strict", strict), ("fuzzy", fuzzy)):
        entry[f"{name}_counts"] = {"true_positives": hits, "false_positives": predicted - hits, "false_negatives": right - hits}
        entry[f"{name}_f1"] = metrics[f"{name}_f1"].as_dict()
    return entry


def _warnings(predictions: Sequence[Predictions], tables: Sequence[FloatArray]) -> list[str]:
    items = predictions[0].items
    found = []
    if items.documents < FEW_DOCUMENTS:
        found.append(f"The intervals rest on {items.documents} documents; with fewer than {FEW_DOCUMENTS} they are too narrow.")
    starts = [document.distances[entity.start] for document, gold in zip(items.tagged, items.gold, strict=True) for entity in gold]
    unknown = starts.count(None)
    if 0 < unknown < len(starts):
        found.append(f"{unknown:,} mentions have no LED; they count in every part by noise, as in the HIPE scorer.")
    for label, one, table in zip(("model", "baseline"), predictions, tables, strict=False):
        found += [f"{label.capitalize()}: {text}" for text in one.warnings]
        strangers = sum(entity.type not in items.types for document in one.found for entity in document.entities)
        if strangers:
            found.append(f"{label.capitalize()}: {strangers:,} predictions are of types that the data do not have; each counts as wrong.")
        left_out = int(((table[:, RIGHT] > 0) & (table[:, PREDICTED] == 0)).sum())
        if left_out:
            found.append(
                f"{label.capitalize()}: nothing is predicted in {left_out:,} documents that have mentions; "
                "the document macro leaves them out, as the HIPE scorer does."
            )
    return found
