"""MinHash signatures of texts, vectorised over a batch, and the banding that finds similar ones without comparing all pairs.

Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", chapter 3. A text is the set of its runs of N words (fewer words: the text itself), without regard to case and white space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words64 = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64; the golden ratio's bits, as in splitmix64
BASE_INVERSE = pow(BASE, -1, 1 << 64)
SPACE = ord(" ")
ROW_BITS = 32  # of a minimum that are kept: two different ones agree by chance once in 2**32


@dataclass(frozen=True)
class Bands:
    """`count` bands of `rows` minima each: texts that agree on all minima of one band are compared."""

    count: int
    rows: int

    def chance(self, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability that texts of this similarity are compared."""
        return 1 - (1 - similarity**self.rows) ** self.count


def choose_bands(permutations: int, threshold: float, missed: float = 0.01) -> Bands:
    """The fewest bands (the least work) that miss at most `missed` of the pairs at the threshold."""
    choices = [Bands(permutations // rows, rows) for rows in range(permutations, 0, -1)]
    return next((bands for bands in choices if 1 - bands.chance(np.array(threshold)) <= missed), choices[-1])


class MinHash:
    """Signatures of `permutations` minima; the same texts give the same signatures everywhere."""

    def __init__(self, permutations: int, words: int, seed: int) -> None:
        self._words = words
        draws = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 64, size=(2, permutations), dtype=np.uint64)
        self._factors, self._addends = draws[0] | np.uint64(1), draws[1]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.uint32]:
        """Signatures, [texts, permutations]. Every text must have a character that is not white space."""
        hashes, starts = shingle_hashes(texts, self._words)
        signatures = np.empty((len(texts), len(self._factors)), dtype=np.uint32)
        for column, (factor, addend) in enumerate(zip(self._factors, self._addends, strict=True)):
            minima = np.minimum.reduceat(hashes * factor + addend, starts)
            signatures[:, column] = minima >> np.uint64(64 - ROW_BITS)
        return signatures


def shingle_hashes(texts: Sequence[str], words: int) -> tuple[Words64, NDArray[np.int64]]:
    """Hashes of all runs of `words` words of all texts, end to end, and where each text's begin, [texts].

    With P[i] the sum of byte[k] * BASE**k over k < i, modulo 2**64, any substring hashes to (P[end] - P[start]) / BASE**start:
    one subtraction and one product, wherever it stands.
    """
    encoded = [" ".join(text.lower().split()).encode("utf-8", "surrogatepass") for text in texts]
    flat = np.frombuffer(b" ".join(encoded) + b" ", dtype=np.uint8)
    text_ends = np.cumsum([len(part) + 1 for part in encoded]) - 1
    ends = np.flatnonzero(flat == SPACE)  # of every word
    starts = np.concatenate(([0], ends[:-1] + 1))
    last_words = np.searchsorted(ends, text_ends)  # of every text
    word_counts = np.diff(last_words, prepend=-1)
    counts = np.maximum(word_counts - words + 1, 1)  # shingles of every text
    first_shingles = np.cumsum(counts) - counts
    first = np.repeat(last_words - word_counts + 1 - first_shingles, counts) + np.arange(counts.sum())
    last = np.minimum(first + words - 1, np.repeat(last_words, counts))
    return _substring_hashes(flat, starts[first], ends[last]), first_shingles


def hash_rows(table: NDArray[np.uint32]) -> Words64:
    """A hash of every row, [rows]."""
    hashes = np.zeros(len(table), dtype=np.uint64)
    for column in range(table.shape[1]):
        hashes = _mix(hashes * np.uint64(BASE) + table[:, column])
    return hashes


def _substring_hashes(flat: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Words64:
    sums = np.zeros(len(flat) + 1, dtype=np.uint64)
    np.cumsum((flat.astype(np.uint64) + np.uint64(1)) * _powers(BASE, len(flat)), out=sums[1:])
    return _mix((sums[ends] - sums[starts]) * _powers(BASE_INVERSE, len(flat))[starts] + (ends - starts).astype(np.uint64))


def _powers(base: int, count: int) -> Words64:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)


def _mix(values: Words64) -> Words64:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): every bit of the input changes half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
