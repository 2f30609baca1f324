"""What the scores of items amount to: accuracy under each rule with intervals, beside guessing, the majority and the baseline model.

`accuracy` is the mean of each item's score under the rule of its suite (multiple choice) or of exact match (free text), which is
also what per_document.jsonl has as `correct`. Intervals are percentile bootstraps over items, or over clusters of items where these
are not independent of one another; two models are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.choice import ChoiceItems, Item, majority_scores
from evaluation.choice_scoring import RULES, ItemScore
from evaluation.statistics import Bootstrap, FloatArray, Interval
from evaluation.suites import Settings, Summary
from evaluation.windows import IntArray

FEW_ITEMS = 20  # with fewer, a percentile bootstrap is too narrow
NO_CATEGORY = "(none)"


@dataclass(frozen=True)
class ChoiceScores:
    """Scores of all items by one model, in the order of the items. `rule` is that of `accuracy` for multiple choice."""

    items: ChoiceItems
    scores: list[ItemScore]
    rule: str

    def column(self, rule: str | None = None) -> FloatArray:
        """Score of each item under a rule (default: the one that counts), NaN where the rule does not apply."""
        if rule is None:
            return np.array([score.scores.get(self.rule, score.scores.get("exact", np.nan)) for score in self.scores])
        return np.array([score.scores.get(rule, np.nan) for score in self.scores])

    def detail(self, name: str) -> FloatArray:
        """A number of each item's details, NaN where it has none."""
        return np.array([score.details.get(name, np.nan) for score in self.scores], dtype=np.float64)


def summarise_choices(
    parts: Sequence[ChoiceScores], settings: Settings, references: Mapping[str, float] | None = None, by_category: bool = True
) -> Summary:
    """Summary of a model's scores and, if there are two, of the baseline's. `references`: name -> published accuracy on these items."""
    model, *others = parts
    items = model.items.items
    measures = _measures(parts)
    clusters = _clusters(items)
    found = {name: _figures(columns, clusters, settings) for name, columns in measures.items()}
    return Summary(
        metrics={name: figures[0] for name, figures in found.items()},
        references=_references(model, references or {}, measures),
        rows=_rows(parts),
        baseline_metrics={name: figures[1] for name, figures in found.items()} if others else None,
        comparison={name: figures[2] for name, figures in found.items()} if others else None,
        domains=_categories(model, settings) if by_category else {},
        warnings=[*_warnings(model, clusters), *_of_each(parts)],
    )


def _measures(parts: Sequence[ChoiceScores]) -> dict[str, list[tuple[FloatArray, FloatArray]]]:
    """Per metric and model, the two columns whose sums are divided."""
    model = parts[0]
    chance: FloatArray = np.array([item.chance for item in model.items.items])
    inside = model.detail("gold_in_prompt") > 0
    found = {"accuracy": [_mean(one.column()) for one in parts]}
    for rule in RULES:
        found[f"accuracy_{rule}"] = [_mean(one.column(rule)) for one in parts]
    if chance.any():
        found["above_chance"] = [(one.column() - chance, 1.0 - chance) for one in parts]
    if inside.any() and not inside.all():
        found["accuracy_gold_not_in_prompt"] = [_mean(np.where(inside, np.nan, one.column())) for one in parts]
    for name in ("contains", "reciprocal_rank"):
        found[name] = [_mean(one.detail(name)) for one in parts]
    return {name: columns for name, columns in found.items() if columns[0][1].any()}


def _mean(column: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = ~np.isnan(column)
    return np.where(known, column, 0.0), known.astype(np.float64)


def _figures(columns: Sequence[tuple[FloatArray, FloatArray]], clusters: IntArray | None, settings: Settings) -> tuple[Interval, ...]:
    """The metric of the model and, with a baseline, its metric and the paired difference."""
    table = np.stack([column for pair in columns for column in pair], axis=1)
    counted = table[:, 1::2].any(axis=1)
    table = table[counted]
    if clusters is not None:
        clusters = np.unique(clusters[counted], return_inverse=True)[1]
        table = np.stack([np.bincount(clusters, weights=column) for column in table.T], axis=1)
    bootstrap = Bootstrap(table, settings.resamples, settings.confidence, settings.seed)
    figures = [bootstrap.interval(_ratio(2 * number)) for number in range(len(columns))]
    if len(columns) > 1:
        figures.append(bootstrap.interval(lambda sums: _ratio(0)(sums) - _ratio(2)(sums)))
    return tuple(figures)


def _ratio(column: int) -> Callable[[FloatArray], Any]:
    return lambda sums: sums[..., column] / sums[..., column + 1]


def _clusters(items: Sequence[Item]) -> IntArray | None:
    """Number of each item's cluster, or None where the items are independent; an item without one is a cluster of its own."""
    if not any(item.cluster for item in items):
        return None
    names = {name: number for number, name in enumerate(dict.fromkeys(item.cluster or (item.id,) for item in items))}
    return np.array([names[item.cluster or (item.id,)] for item in items], dtype=np.int64)


def _references(model: ChoiceScores, published: Mapping[str, float], metrics: Iterable[str]) -> dict[str, dict[str, Interval]]:
    """Guessing and the majority under every rule, on the items that the rule is for; what was published is about `accuracy` alone."""
    items = model.items.items
    trivial = {"uniform": [item.chance for item in items], "majority": majority_scores(items)}
    rules = {name: model.column(name.removeprefix("accuracy_")) for name in metrics if name.removeprefix("accuracy_") in RULES}
    rules["accuracy"] = model.column()
    found = {
        reference: {name: Interval(float(np.mean(np.array(scores)[~np.isnan(column)]))) for name, column in rules.items()}
        for reference, scores in trivial.items()
        if scores is not None
    }
    return found | {name: {"accuracy": Interval(value)} for name, value in published.items()}


def _rows(parts: Sequence[ChoiceScores]) -> list[dict[str, Any]]:
    model, *others = parts
    columns = [one.column().tolist() for one in parts]
    rows = []
    for number, (item, score) in enumerate(zip(model.items.items, model.scores, strict=True)):
        row: dict[str, Any] = {"id": item.id, "category": item.category} if item.category else {"id": item.id}
        row |= {"correct": columns[0][number], **{f"correct_{rule}": value for rule, value in score.scores.items()}}
        for other, column in zip(others, columns[1:], strict=True):
            row |= {"baseline_correct": column[number]}
            row |= {f"baseline_correct_{rule}": value for rule, value in other.scores[number].scores.items()}
        language = {"language": item.language} if item.language else {}
        cluster = {"cluster": item.cluster} if item.cluster else {}
        rows.append(row | language | cluster | score.details | dict(item.extra))
    return rows


def _categories(model: ChoiceScores, settings: Settings) -> dict[str, dict[str, Any]]:
    """Accuracy and chance of each category; nothing where there are none."""
    items = model.items.items
    if not any(item.category for item in items):
        return {}
    names = np.array([item.category or NO_CATEGORY for item in items])
    clusters, column = _clusters(items), model.column()
    table = {}
    for name in sorted(set(names.tolist())):
        rows = names == name
        (accuracy,) = _figures([_mean(np.where(rows, column, np.nan))], clusters, settings)
        chance = float(np.mean([item.chance for item, inside in zip(items, rows, strict=True) if inside]))
        table[name] = {"items": int(rows.sum()), "chance": chance, "accuracy": accuracy.as_dict()}
    return table


def _warnings(model: ChoiceScores, clusters: IntArray | None) -> list[str]:
    found = []
    independent = len(model.scores) if clusters is None else len(np.unique(clusters))
    if independent < FEW_ITEMS:
        what = "items" if clusters is None else "clusters of items"
        found.append(f"The intervals rest on {independent} {what}; with fewer than {FEW_ITEMS} they are too narrow.")
    inside = np.nansum(model.detail("gold_in_prompt"))
    if inside:
        found.append(f"The right answer stands in the prompt of {int(inside):,} of {len(model.scores):,} items, where copying finds it.")
    return found


def _of_each(parts: Sequence[ChoiceScores]) -> list[str]:
    found = []
    for label, one in zip(("model", "baseline"), parts, strict=False):
        unfinished = np.nansum(one.detail("unfinished"))
        if unfinished:
            found.append(f"The {label} wrote {int(unfinished):,} texts that were cut before they ended; see --set max_new_tokens.")
        items = int((one.detail("unknown_tokens") > 0).sum())
        if items:
            found.append(
                f"The {label}'s tokenizer wrote unknown tokens in the answers of {items:,} of {len(one.scores):,} items, and cannot tell "
                "such answers apart."
            )
    return found
