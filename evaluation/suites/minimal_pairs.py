"""Minimal pairs: which of two sentences that differ in one point does the model find likelier, the acceptable one or the other?

Data: JSONL as BLiMP has it (Warstadt et al. 2020), one file per paradigm or all in one, with `sentence_good`, `sentence_bad`, and, where
they are known, `UID` (the paradigm) and `linguistics_term` or `field`. A paradigm is a category of the report.

A sentence's score is its log-likelihood as a whole, after the prefix token, or a masked model's pseudo-log-likelihood
(`evaluation.masked`); it is not divided by the length, because both sentences of a pair are about as long (accuracy_byte stands beside
it). Equal scores count 1/2, so that a model without preferences has 0.5 and not 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluation.choice import ChoiceItem, ChoiceItems, Item
from evaluation.choice_suite import ChoiceSuite
from evaluation.records import Record, read_records
from evaluation.suites import Settings

BLIMP_PARADIGMS, BLIMP_PAIRS = 67, 67_000
# Individual human agreement over all paradigms of BLiMP (https://github.com/alexwarstadt/blimp, data and issue 2).
BLIMP_HUMAN = 0.886


class MinimalPairs(ChoiceSuite):
    """The suite, see the module's text for the definition."""

    name = "minimal_pairs"
    version = 1
    rule = "sum"
    lists_options = False

    def read_items(self, path: Path, settings: Settings) -> Iterator[Item]:
        """Pairs of all files, in order."""
        return map(_pair, read_records(path))

    def references(self, items: ChoiceItems) -> Mapping[str, float]:
        """What people score on the whole of BLiMP."""
        paradigms = {item.category for item in items.items}
        whole = len(paradigms) == BLIMP_PARADIGMS and len(items.items) == BLIMP_PAIRS
        return {"human": BLIMP_HUMAN} if whole else {}


SUITE = MinimalPairs()


def _pair(record: Record) -> ChoiceItem:
    good, bad = record.text("sentence_good"), record.text("sentence_bad")
    paradigm = record.text("UID") if "UID" in record.fields else ""
    known = {name: record.fields[name] for name in ("field", "linguistics_term") if isinstance(record.fields.get(name), str)}
    return ChoiceItem(record.name, "", (good, bad), good, category=paradigm, where=record.place, extra=known)
