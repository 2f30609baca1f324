"""Two ways of cutting the same texts into tokens, compared by the bytes that each token covers.

Tokens of series of different lengths cannot be compared by their place in the series. Here a token is the same when the same id covers
the same bytes, and a boundary is the same when it lies behind the same byte. All of it is counted, and counts of batches add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.indexed import IndexedReader
from nemo_ext.common.dataset import DatasetInfo
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer
from nemo_ext.tokenizers.ragged import from_lengths

BATCH_TOKENS = 1 << 18


@dataclass
class CutCounts:
    """What became of the tokens and boundaries of some documents. A boundary is the end of a token, the last of a document included."""

    documents: int = 0
    documents_changed: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    tokens_same: int = 0
    boundaries_same: int = 0

    def __add__(self, other: CutCounts) -> CutCounts:
        return CutCounts(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def shares(self) -> dict[str, float | None]:
        """Expansion, and shares of what changed: `ids_changed` of the tokens after, boundaries of those there were before."""

        def share(part: int, whole: int) -> float | None:
            return round(part / whole, 6) if whole else None

        return {
            "expansion": share(self.tokens_after - self.tokens_before, self.tokens_before),
            "documents_changed": share(self.documents_changed, self.documents),
            "ids_changed": share(self.tokens_after - self.tokens_same, self.tokens_after),
            "boundaries_added": share(self.tokens_after - self.boundaries_same, self.tokens_before),
            "boundaries_removed": share(self.tokens_before - self.boundaries_same, self.tokens_before),
        }


def token_ends(ids: NDArray[Any], tokenizer: TextTokenizer) -> NDArray[np.int64]:
    """Bytes up to the end of every token, [tokens]."""
    lengths = np.diff(tokenizer.spelling.offsets)
    return np.cumsum(lengths[ids])


def spelled(ids: NDArray[Any], tokenizer: TextTokenizer) -> NDArray[np.uint8]:
    """The bytes that the tokens spell, end to end."""
    data, offsets = tokenizer.spelling.data, tokenizer.spelling.offsets
    lengths = offsets[ids + 1] - offsets[ids]
    ends = np.cumsum(lengths)
    return data[np.repeat(offsets[ids] - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)]


def text_lengths(batch: RaggedBatch, tokenizer: TextTokenizer) -> NDArray[np.int64]:
    """Bytes that each document's tokens spell, [documents]."""
    ends = np.concatenate(([0], token_ends(batch.ids, tokenizer)))
    return np.diff(ends[batch.offsets])


def compare_cuts(before: RaggedBatch, after: RaggedBatch, tokenizer: TextTokenizer) -> CutCounts:
    """Counts for documents that spell the same in both batches."""
    ends_before, ends_after = token_ends(before.ids, tokenizer), token_ends(after.ids, tokenizer)
    _, here, there = np.intersect1d(ends_before, ends_after, return_indices=True)
    starts_before, starts_after = (np.concatenate(([0], ends[:-1])) for ends in (ends_before, ends_after))
    same = (starts_before[here] == starts_after[there]) & (before.ids[here] == after.ids[there])
    changed = before.lengths != after.lengths
    same_in_document = np.diff(np.concatenate(([0], np.cumsum(np.bincount(here[same], minlength=len(before.ids)))))[before.offsets])
    return CutCounts(
        documents=before.documents,
        documents_changed=int((changed | (same_in_document != before.lengths)).sum()),
        tokens_before=len(before.ids),
        tokens_after=len(after.ids),
        tokens_same=int(same.sum()),
        boundaries_same=len(here),
    )


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` of `count` documents, or all if there are fewer, spread evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, num=min(wanted, count), dtype=np.int64))


def unit_of(info: DatasetInfo) -> str:
    """What the sequences of a dataset are: "documents", or "sentences" where those were encoded one by one."""
    return "sentences" if info.manifest.get("sentences") else "documents"


def content(ids: NDArray[Any], info: DatasetInfo, tokenizer: TextTokenizer) -> NDArray[Any]:
    """A stored sequence without the control tokens that preparation put at the ends of documents."""
    if info.append_eod and len(ids) and ids[-1] == info.eod_id:
        ids = ids[:-1]
    return ids[1:] if info.manifest.get("prepend_bos") and len(ids) and ids[0] == tokenizer.bos_id else ids


def batches(
    info: DatasetInfo, tokenizer: TextTokenizer, split: str, numbers: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], RaggedBatch]]:
    """The contents of the sequences `numbers` of a split, in batches of about BATCH_TOKENS, with their numbers.

    A sequence is a document, or a sentence where sentences were encoded one by one.
    """
    reader = IndexedReader(info.splits[split].prefix)
    limits = np.flatnonzero(np.diff(np.cumsum(reader.lengths[numbers], dtype=np.int64) // BATCH_TOKENS)) + 1
    for chosen in np.split(numbers, limits) if len(numbers) else ():
        parts = [content(reader.sequence(int(number)), info, tokenizer) for number in chosen]
        yield chosen, from_lengths(np.concatenate(parts).astype(np.int64), np.array([len(part) for part in parts]))
