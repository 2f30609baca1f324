"""Arms side by side on the same items: mean and spread over seeds, paired differences, per category.

Up to ALL_PAIRS arms every pair is compared; of more, each with the first alone, because the tests grow with the square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from evaluation.compare_inputs import Measured
from evaluation.compare_statistics import compare_pairs, holm, verdict
from evaluation.statistics import Bootstrap, FloatArray
from evaluation.stored import ItemScores
from nemo_ext.common.errors import DataError

ALL_PAIRS = 4
FEW_ITEMS = 20  # with fewer, a percentile bootstrap is too narrow


@dataclass(frozen=True)
class Arm:
    """Measurements under one label: `scores` `[seeds, items]`, all with the items of `items`."""

    label: str
    members: tuple[Measured, ...]
    items: ItemScores
    scores: FloatArray


def compare_measurement(members: Sequence[Measured]) -> dict[str, Any]:
    """One suite on one set of items: its arms, their comparisons, and those of their categories."""
    arms = _arms(members)
    settings = members[0].source.results["settings"]
    resampling = settings["resamples"], settings["confidence"], settings["seed"]
    suite = members[0].suite
    pairs = list(combinations(arms, 2)) if len(arms) <= ALL_PAIRS else [(arms[0], other) for other in arms[1:]]
    comparisons = [_comparison(*pair, resampling) for pair in pairs]
    _adjust([one["difference"] for one in comparisons], resampling[1])
    _adjust([entry["difference"] for one in comparisons for entry in one["categories"]], resampling[1])
    return {
        "suite": suite["name"],
        "version": suite["version"],
        "metric": suite["primary_metric"],
        "lower_is_better": suite["lower_is_better"],
        "items": len(arms[0].items.ids),
        "clusters": len(together(arms[0].items.weights, arms[0].items)) if any(arms[0].items.clusters) else None,
        "confidence": resampling[1],
        "resamples": resampling[0],
        "paired": True,
        "arms": [_describe(arm, resampling) for arm in arms],
        "comparisons": comparisons,
    }


def describe_unpaired(members: Sequence[Measured]) -> dict[str, Any]:
    """As `compare_measurement`, where there are no scores of single items: figures as they are in results.json, one arm each."""
    suite, source = members[0].suite, members[0].source
    arms = []
    for one in members:
        figure = one.metrics[suite["primary_metric"]]
        origin = {"results": str(one.source.path.absolute()), "sha256": one.source.sha256, "part": one.part}
        known: dict[str, Any] = {
            "label": one.label,
            "seeds": 1,
            "figures": [figure["value"]],
            **figure,
            "seed_spread": None,
            "categories": {},
        }
        arms.append(known | {"weights_sha256": [one.model["weights_sha256"]], "sources": [origin]})
    return {
        "suite": suite["name"],
        "version": suite["version"],
        "metric": suite["primary_metric"],
        "lower_is_better": suite["lower_is_better"],
        "items": source.documents,
        "clusters": None,
        "confidence": source.results["settings"]["confidence"],
        "resamples": source.results["settings"]["resamples"],
        "paired": False,
        "arms": arms,
        "comparisons": [],
    }


def _arms(members: Sequence[Measured]) -> list[Arm]:
    grouped: dict[str, list[Measured]] = {}
    for one in members:
        grouped.setdefault(one.label, []).append(one)
    reference: ItemScores | None = None
    arms = []
    for label, group in grouped.items():
        scores = []
        for one in group:
            items = one.source.items(one.part)
            reference = reference or items
            scores.append(_aligned(items, reference, one))
        assert reference is not None
        arms.append(Arm(label, tuple(group), reference, np.stack(scores)))
    return arms


def _aligned(items: ItemScores, reference: ItemScores, one: Measured) -> FloatArray:
    """Scores in the order of the reference's items. Raises DataError unless the items are the same."""
    if items.ids == reference.ids and np.array_equal(items.weights, reference.weights):
        return items.scores
    place = {identity: number for number, identity in enumerate(items.ids)}
    unlike = set(items.ids) ^ set(reference.ids)
    if unlike or len(place) != len(items.ids):
        example = f"for example {min(unlike)!r}" if unlike else "ids occur twice"
        raise DataError(f"{one.source.rows_path} has other items than the results before it ({example}), so nothing can be paired.")
    order = [place[identity] for identity in reference.ids]
    if not np.array_equal(items.weights[order], reference.weights):
        raise DataError(f"{one.source.rows_path} has items of other lengths than the results before it, so nothing can be paired.")
    return items.scores[order]


def _describe(arm: Arm, resampling: tuple[int, float, int]) -> dict[str, Any]:
    figures = arm.scores.sum(axis=1) / arm.items.weights.sum()
    return {
        "label": arm.label,
        "seeds": len(figures),
        "figures": figures.tolist(),
        **_figure(arm, slice(None), resampling),
        "seed_spread": float(figures.std(ddof=1)) if len(figures) > 1 else None,
        "weights_sha256": [one.model["weights_sha256"] for one in arm.members],
        "sources": [{"results": str(one.source.path.absolute()), "sha256": one.source.sha256, "part": one.part} for one in arm.members],
        "categories": {
            name: _figure(arm, rows, resampling) | {"items": int(rows.sum())} for name, rows in categories_of(arm.items).items()
        },
    }


def _figure(arm: Arm, rows: Any, resampling: tuple[int, float, int]) -> dict[str, Any]:
    """The mean over seeds with the interval over items, or over clusters of them."""
    columns = together(np.stack([arm.scores.mean(axis=0), arm.items.weights]), arm.items, rows).T
    return dict(Bootstrap(columns, *resampling).interval(lambda sums: sums[..., 0] / sums[..., 1]).as_dict())


def together(values: FloatArray, items: ItemScores, rows: Any = slice(None)) -> FloatArray:
    """`values` `[..., items]` of `rows`, summed over the items of each cluster, so that what is drawn and flipped is independent."""
    values = values[..., rows]
    if not any(items.clusters):
        return values
    names = [f"cluster {cluster}" if cluster else f"item {identity}" for cluster, identity in zip(items.clusters, items.ids, strict=True)]
    found, numbers = np.unique(np.array(names)[rows], return_inverse=True)
    sums = np.zeros((*values.shape[:-1], len(found)))
    np.add.at(sums.T, numbers, values.T)
    return sums


def categories_of(items: ItemScores) -> dict[str, Any]:
    """Rows of each category, by name; nothing when there is only one."""
    labels = np.array(items.categories)
    names = sorted(set(items.categories))
    return {name or "(none)": labels == name for name in names} if len(names) > 1 else {}


def _comparison(first: Arm, second: Arm, resampling: tuple[int, float, int]) -> dict[str, Any]:
    def difference(rows: Any = slice(None)) -> dict[str, float | None]:
        one, other, weights = (together(values, first.items, rows) for values in (first.scores, second.scores, first.items.weights))
        return compare_pairs(one, other, weights, *resampling).as_dict()

    return {
        "from": first.label,
        "to": second.label,
        "difference": difference(),
        "categories": [
            {
                "category": name,
                "items": int(rows.sum()),
                "difference": difference(rows),
            }
            for name, rows in categories_of(first.items).items()
        ],
    }


def _adjust(differences: list[dict[str, Any]], confidence: float) -> None:
    """Add the adjusted p-value and the verdict; all differences of one table count as one family."""
    tested = [one for one in differences if one["p_value"] is not None]
    for one, adjusted in zip(tested, holm([one["p_value"] for one in tested]), strict=True):
        one["adjusted_p_value"] = adjusted
    for one in differences:
        one.setdefault("adjusted_p_value", None)
        one["verdict"] = verdict(one, confidence)
