"""BPE's merging in compiled code: always the pair of best rank, the leftmost of equals (Sennrich et al. 2016).

Pairs are kept in a hash table. A few symbols are merged by looking at all of them each time, many by a heap, so that time grows with
n log n for text that has no place to cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.random_stream import mixed

NO_RANK = np.uint64(0xFFFFFFFFFFFFFFFF)
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)
FEW = 64  # symbols from which on a heap is faster
HEAP_ENTRIES = 3  # a symbol: the pairs that there are at first, and at most two for every merge
GONE = -1  # a symbol that was merged into the one before it


def merge_table(merges: NDArray[np.uint64], ranks: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Keys and values for `merge_of`, from `merges` [merges, 3], (left, right, merged) ids, and their ranks."""
    size = 1 << (2 * len(merges)).bit_length() if len(merges) else 0
    keys, values = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)
    enter_merges(((merges[:, 0] + ONE) << HALF) | merges[:, 1], (ranks << HALF) | merges[:, 2], keys, values)
    return keys, values


@compiled
def enter_merges(pairs: NDArray[np.uint64], merged: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.uint64]) -> None:
    """Enter every pair into the hash table; of two equal pairs the first stays."""
    mask = np.uint64(len(keys) - 1)
    for number in range(len(pairs)):
        place = mixed(pairs[number]) & mask
        while keys[place] and keys[place] != pairs[number]:
            place = (place + ONE) & mask
        if not keys[place]:
            keys[place], values[place] = pairs[number], merged[number]


@compiled
def merge_of(keys: NDArray[np.uint64], merges: NDArray[np.uint64], left: int, right: int) -> np.uint64:
    """Rank (upper half) and merged id (lower half) of a pair, NO_RANK when it does not merge."""
    mask = np.uint64(len(keys) - 1)
    pair = (np.uint64(left + 1) << HALF) | np.uint64(right)
    place = mixed(pair) & mask
    while keys[place]:
        if keys[place] == pair:
            return merges[place]
        place = (place + np.uint64(1)) & mask
    return NO_RANK


@compiled
def merge_few(
    keys: NDArray[np.uint64], merges: NDArray[np.uint64], symbols: NDArray[np.int32], first: int, end: int, ranks: NDArray[np.uint64]
) -> np.int64:
    """Merge the symbols `symbols[first:end]` in place; returns the end of them. `ranks` needs room for as many."""
    count = end - first
    for place in range(count - 1):
        ranks[place] = merge_of(keys, merges, symbols[first + place], symbols[first + place + 1])
    while count > 1:
        best = 0
        for place in range(1, count - 1):
            if (ranks[place] >> HALF) < (ranks[best] >> HALF):
                best = place
        if ranks[best] == NO_RANK:
            break
        symbols[first + best] = np.int64(ranks[best] & LOW_HALF)
        count -= 1
        for place in range(best + 1, count):
            symbols[first + place] = symbols[first + place + 1]
        for place in range(best, count - 1):
            ranks[place] = ranks[place + 1]
        if best > 0:
            ranks[best - 1] = merge_of(keys, merges, symbols[first + best - 1], symbols[first + best])
        if best < count - 1:
            ranks[best] = merge_of(keys, merges, symbols[first + best], symbols[first + best + 1])
    return np.int64(first + count)


@compiled
def merge_many(
    keys: NDArray[np.uint64],
    merges: NDArray[np.uint64],
    symbols: NDArray[np.int32],
    count: int,
    heap: NDArray[np.uint64],
    before: NDArray[np.int32],
    after: NDArray[np.int32],
) -> np.int64:
    """Merge `symbols[:count]` in place; returns how many are left.

    `heap` needs room for HEAP_ENTRIES a symbol, each a rank (upper half) and the place of the left symbol: the least is the next to merge.
    `before` and `after` need room for a symbol each, and link those that are left.
    """
    size = np.int64(0)
    for place in range(count):
        before[place], after[place] = place - 1, place + 1 if place + 1 < count else GONE
        size = push(keys, merges, symbols, place, np.int64(after[place]), heap, size)
    while size:
        left, rank = np.int64(heap[0] & LOW_HALF), heap[0] >> HALF
        size = drop_least(heap, size)
        right = np.int64(after[left])
        if symbols[left] == GONE or right == GONE:
            continue
        merge = merge_of(keys, merges, symbols[left], symbols[right])
        if merge == NO_RANK or merge >> HALF != rank:
            continue  # one of the two has merged with another meanwhile
        symbols[left], symbols[right] = np.int64(merge & LOW_HALF), GONE
        following = np.int64(after[right])
        after[left] = following
        if following != GONE:
            before[following] = left
            size = push(keys, merges, symbols, left, following, heap, size)
        if before[left] != GONE:
            size = push(keys, merges, symbols, np.int64(before[left]), left, heap, size)
    kept = np.int64(0)
    for place in range(count):
        if symbols[place] != GONE:
            symbols[kept] = symbols[place]
            kept += 1
    return kept


@compiled
def push(
    keys: NDArray[np.uint64],
    merges: NDArray[np.uint64],
    symbols: NDArray[np.int32],
    place: int,
    right: int,
    heap: NDArray[np.uint64],
    size: Any,
) -> np.int64:
    """Enter the pair of the symbols at `place` and `right` if it merges; returns the size of the heap."""
    merge = merge_of(keys, merges, symbols[place], symbols[right]) if right != GONE else NO_RANK
    if merge == NO_RANK:
        return np.int64(size)
    entry, hole = (merge & ~LOW_HALF) | np.uint64(place), np.int64(size)
    while hole and heap[(hole - 1) >> 1] > entry:
        heap[hole] = heap[(hole - 1) >> 1]
        hole = (hole - 1) >> 1
    heap[hole] = entry
    return np.int64(size + 1)


@compiled
def drop_least(heap: NDArray[np.uint64], size: Any) -> np.int64:
    """Take the least entry away; returns the size of the heap."""
    size -= 1
    entry, hole = heap[size], np.int64(0)
    while 2 * hole + 1 < size:
        child = 2 * hole + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = entry
    return np.int64(size)
