"""The hierarchical benchmark: six levels from single characters to inflecting an inflected word again, and how far a model climbs.

Data: `hierarchical_{mcq, gen}.jsonl` of `sibol evaluate generate`, whose affixes are those of a table of Filipino morphology, or the
published files, whose affixes were mostly guessed from prefixes of strings: those figures say little about morphology. The right
option is told by its value; the published files list options in random order, and scoring the first one as right measures nothing.

Beside the accuracy of each level:

    levels_in_a_row  how many levels are answered one after another from level 0 on, the mean over chains (0 to 6)
    n given 0 to n-1 accuracy on level n over the chains whose lower levels are all answered

A chain is six questions about one word, one per level (`metadata.chain`). Where options tie, a chain counts with the product of the
points its levels share. Intervals draw whole chains. Published files have no chains, and there only accuracies are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.choice import ChoiceItems, Item
from evaluation.choice_summary import ChoiceScores
from evaluation.records import Record
from evaluation.statistics import Bootstrap, FloatArray, Interval
from evaluation.suites import Settings, Summary
from evaluation.suites.published import LanguageOptions, PublishedSuite, answer_of, form_of, make_item
from evaluation.windows import IntArray
from nemo_ext.common.errors import DataError

LEVELS = 6
CLIMB = "levels_in_a_row"
FEW_CHAINS = 20


class Hierarchical(PublishedSuite):
    """The suite, see the module's text for the definition."""

    name = "hierarchical"
    version = 1
    options = LanguageOptions
    files = ("hierarchical",)

    def item(self, record: Record, family: str, chosen: Any) -> Item:
        """The item of a line; chain and level go into its row."""
        level, notes = record.fields.get("level"), record.fields.get("metadata")
        if not isinstance(level, int) or not 0 <= level < LEVELS:
            raise DataError(f"{record.place} has the level {level!r}, expected 0 to {LEVELS - 1}. Mend or remove the line.")
        chain = notes.get("chain") if isinstance(notes, Mapping) else None
        return make_item(
            record,
            record.text(f"prompt_{chosen.language}"),
            chosen.language,
            f"level {level}: {record.text('category').replace('_', ' ')}",
            answer_of(record, "answer"),
            record.texts("options") if "options" in record.fields else None,
            cluster=f"chain {chain}" if chain is not None else record.text("word"),
            extra={"level": level} | ({"chain": chain} if chain is not None else {}),
        )

    def summarise(self, scores: Sequence[ChoiceScores], settings: Settings) -> Summary:
        """As for any multiple choice, with the climb of whole chains."""
        summary = super().summarise(scores, settings)
        chains = _chains(scores[0].items)
        if chains is None:
            warning = "The items belong to no chains from level 0 to 5, so how far the model climbs is not known."
            return replace(summary, warnings=[*summary.warnings, warning])
        passed = [chains.passed(one.column()) for one in scores]
        climbs = [_climb(chains, one, settings) for one in passed]
        compared = {CLIMB: _climb(chains, passed[0] - passed[1], settings)} if len(passed) > 1 else {}
        count = len(np.unique(chains.owners))
        few = [f"The figures of chains rest on {count} of them; with fewer than {FEW_CHAINS} the intervals are too narrow."]
        guessed = Interval(float(chains.passed(np.array([item.chance for item in scores[0].items.items])).sum(axis=1).mean()))
        return replace(
            summary,
            metrics=summary.metrics | {CLIMB: climbs[0]},
            baseline_metrics=summary.baseline_metrics | {CLIMB: climbs[1]} if summary.baseline_metrics else None,
            comparison=summary.comparison | compared if summary.comparison else None,
            domains=summary.domains | _cascade(chains, passed[0], settings),
            references=summary.references | {"uniform": summary.references["uniform"] | {CLIMB: guessed}},
            warnings=[*summary.warnings, *(few if count < FEW_CHAINS else [])],
        )


SUITE = Hierarchical()


@dataclass(frozen=True)
class Chains:
    """Whole chains: the numbers of their items `[chains, LEVELS]`, and which are about the same word and drawn together `[chains]`."""

    numbers: IntArray
    owners: IntArray

    def passed(self, points: FloatArray) -> FloatArray:
        """`[chains, LEVELS]`: the points of all levels up to this one, multiplied."""
        return np.cumprod(points[self.numbers], axis=1)

    def ratio(self, part: FloatArray, whole: FloatArray, settings: Settings) -> Interval:
        """Sum of `part` over sum of `whole`, both `[chains]`, over the chains where `whole` is not 0."""
        table = np.zeros((int(self.owners.max()) + 1, 2))
        np.add.at(table, self.owners, np.stack([part, whole], axis=1))
        bootstrap = Bootstrap(table[table[:, 1] > 0], settings.resamples, settings.confidence, settings.seed)
        return bootstrap.interval(lambda sums: sums[..., 0] / sums[..., 1])


def _chains(items: ChoiceItems) -> Chains | None:
    """The whole chains, those of chosen and of written answers apart; None where there are none."""
    found: dict[tuple[str, Any], dict[int, int]] = {}
    for number, item in enumerate(items.items):
        if "chain" in item.extra:
            found.setdefault((form_of(item), item.extra["chain"]), {})[item.extra["level"]] = number
    whole = {key: levels for key, levels in found.items() if len(levels) == LEVELS}
    if not whole:
        return None
    numbers = np.array([[levels[level] for level in range(LEVELS)] for levels in whole.values()], dtype=np.int64)
    words = {chain: number for number, chain in enumerate(dict.fromkeys(chain for _, chain in whole))}
    return Chains(numbers, np.array([words[chain] for _, chain in whole], dtype=np.int64))


def _climb(chains: Chains, passed: FloatArray, settings: Settings) -> Interval:
    """Levels in a row, the mean over chains; of a difference of two models, the mean difference."""
    return chains.ratio(passed.sum(axis=1), np.ones(len(passed)), settings)


def _cascade(chains: Chains, passed: FloatArray, settings: Settings) -> dict[str, dict[str, Any]]:
    """Per level above 0, how often it is answered where all below are; a level that no chain gets to has no row."""
    rows = {}
    for level in range(1, LEVELS):
        below = passed[:, level - 1]
        if below.any():
            name = f"level {level} given 0" + (f" to {level - 1}" if level > 1 else "")
            share = chains.ratio(passed[:, level], below, settings)
            rows[name] = {"items": int((below > 0).sum()), "chance": None, "accuracy": share.as_dict()}
    return rows
