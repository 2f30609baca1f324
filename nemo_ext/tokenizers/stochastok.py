"""StochasTok: random splits of tokens into pairs of tokens (Sims et al. 2025, arXiv:2506.01687), in linear time.

The law, for a document of n tokens: floor(expand_prop x n) attempts, each at a uniform position of the list as it then is. A token
that splits is replaced by a uniformly chosen one of its splits; at one that does not, the attempt is spent.

Tokens lie in slots that never move, linked in the order of the text; a split keeps its left half in the slot and appends the right
one. Choosing a slot is choosing a position, without the list being rebuilt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_ext.config.schema import setting
from nemo_ext.tokenizers.array_cache import cached
from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.random_stream import State, below, restart, seed_bits
from nemo_ext.tokenizers.split_table import SplitTable, build_split_table
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer

COUNTS = ("attempts", "splits", "unsplittable")


@dataclass
class StochastokSettings:
    """How much to split."""

    expand_prop: float = setting(0.1, "attempts to split, as a share of a document's tokens", minimum=0)


class Stochastok:
    """Splits tokens at random. `counts`: attempts, splits made, and attempts spent on tokens that do not split."""

    name = "stochastok"
    settings_type = StochastokSettings

    def __init__(self, settings: StochastokSettings, tokenizer: TextTokenizer) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._table = cached(SplitTable, tokenizer.fingerprint, lambda: build_split_table(tokenizer.spelling))

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        """The batch with tokens split."""
        attempts = np.floor(self.settings.expand_prop * batch.lengths).astype(np.int64)
        ids = np.empty(len(batch.ids) + int(attempts.sum()), dtype=np.int32)
        work = np.empty((2, int((batch.lengths + attempts).max(initial=0))), dtype=np.int32)
        offsets, counts = np.zeros_like(batch.offsets), np.zeros(len(COUNTS), dtype=np.int64)
        before = batch.ids.astype(np.int32, copy=False)
        keys = document_ids, seed_bits(seed), np.zeros(1, dtype=np.uint64)
        expand_batch(before, batch.offsets, attempts, *keys, self._table, work, ids, offsets, counts)
        self.counts.update(dict(zip(COUNTS, counts.tolist(), strict=True)))
        return RaggedBatch(ids[: offsets[-1]], offsets)


@compiled
def expand_batch(
    before: NDArray[np.int32],
    offsets: NDArray[np.int64],
    attempts: NDArray[np.int64],
    document_ids: NDArray[np.uint64],
    seed: np.uint64,
    state: State,
    table: SplitTable,
    work: NDArray[np.int32],
    after: NDArray[np.int32],
    after_offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Write the expanded documents into `after`, their limits into `after_offsets` and add to `counts` (see COUNTS)."""
    slots, following = work[0], work[1]
    for document in range(len(document_ids)):
        start, length = offsets[document], offsets[document + 1] - offsets[document]
        for slot in range(length):
            slots[slot], following[slot] = before[start + slot], slot + 1
        restart(state, seed, document_ids[document])
        used = expand(slots, following, length, attempts[document], table, state)
        counts[0] += attempts[document]
        counts[1] += used - length
        counts[2] += attempts[document] - (used - length)
        write, place = after_offsets[document], np.int64(0)
        for _ in range(used):
            after[write] = slots[place]
            write, place = write + 1, np.int64(following[place])
        after_offsets[document + 1] = write


@compiled
def expand(slots: NDArray[np.int32], following: NDArray[np.int32], used: int, attempts: int, table: SplitTable, state: State) -> int:
    """Attempt splits among the first `used` slots, which `following` links; returns the number of slots in use then."""
    for _ in range(attempts):
        slot = below(state, used)
        first = table.offsets[slots[slot]]
        choices = table.offsets[slots[slot] + 1] - first
        if choices:
            chosen = first + below(state, choices)
            slots[slot], slots[used] = table.left[chosen], table.right[chosen]
            following[slot], following[used] = used, following[slot]
            used += 1
    return used
