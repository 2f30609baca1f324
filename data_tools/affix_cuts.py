"""Whether tokens end where affixes do: affixes found by their place in a word, and the token boundaries at and within them.

A prefix is looked for at the beginning of a word, an infix after its first consonant, a suffix at its end, the longest of each kind.
A stem must remain beside it, but a prefix may also stand before a hyphen (mag-aral). These are the rules of the plugin `patok`.
They are about spelling: a word that merely begins like a prefix counts. So the numbers say how the cuts of two arms treat the same
strings, and not how many affixes a text has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[^\W\d_]+(?:-(?=[^\W\d_]))?")  # with the hyphen that joins it to the next
KINDS = ("prefix", "infix", "suffix")
CONSONANT = re.compile(r"ng|[b-df-hj-np-tv-z]")
SHORTEST_STEM = 2  # characters that a word must have besides its affix
MOST_FREQUENT = 10


class Occurrences(NamedTuple):
    """Affixes in a text: `affix` numbers, and where each starts and ends, in bytes."""

    affix: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


class AffixCuts:
    """Counts, over texts that are added, of affix occurrences whose edges are token boundaries, before and after a treatment."""

    def __init__(self, affixes: Mapping[str, Sequence[str]]) -> None:
        """`affixes` has lower-case forms by kind: prefix, infix, suffix."""
        self._names = [(kind, form) for kind in KINDS for form in dict.fromkeys(affixes[kind])]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._lengths = {kind: sorted({len(form) for form in affixes[kind]}, reverse=True) for kind in KINDS}
        self._kind_of = np.array([KINDS.index(kind) for kind, _ in self._names], dtype=np.int64)
        self._counts = np.zeros((5, len(self._names)), dtype=np.int64)  # occurrences; at the edge and cut within, before and after
        self._of_word = cache(self._find)

    def add(self, text: str, first_byte: int, ends_before: NDArray[np.int64], ends_after: NDArray[np.int64]) -> None:
        """Count a text that begins at `first_byte` of the bytes in which the sorted token ends are given."""
        found = self.occurrences(text)
        edges = self._edges(Occurrences(found.affix, found.start + first_byte, found.end + first_byte), (ends_before, ends_after))
        for row, chosen in enumerate((np.ones(len(found.affix), bool), *edges)):
            self._counts[row] += np.bincount(found.affix[chosen], minlength=len(self._names))

    def occurrences(self, text: str) -> Occurrences:
        """All affixes of a text."""
        found = [
            (affix, word.start() + start, word.start() + end)
            for word in WORD.finditer(text)
            for affix, start, end in self._of_word(word.group())
        ]
        affix, start, end = np.array(found, dtype=np.int64).reshape(-1, 3).T
        if not text.isascii():
            characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
            sizes = 1 + (characters >= 0x80).astype(np.int64) + (characters >= 0x800) + (characters >= 0x10000)  # of UTF-8
            offsets = np.concatenate(([0], np.cumsum(sizes)))
            start, end = offsets[start], offsets[end]
        return Occurrences(affix, start, end)

    def _find(self, word: str) -> tuple[tuple[int, int, int], ...]:
        """The affixes of a match of WORD: number, start and end in characters."""
        letters = word.removesuffix("-")
        lower = letters.lower() if len(letters.lower()) == len(letters) else letters
        consonant = CONSONANT.match(lower)
        limits = {
            "prefix": (0, len(lower) - (SHORTEST_STEM if letters == word else 0)),
            "infix": (consonant.end() if consonant else len(lower), len(lower) - 1),
            "suffix": (SHORTEST_STEM, len(lower)),
        }
        found = []
        for kind, (earliest, latest) in limits.items():
            for length in self._lengths[kind]:
                start = latest - length if kind == "suffix" else earliest
                number = self._numbers.get((kind, lower[max(start, 0) : start + length]))
                if number is not None and earliest <= start and start + length <= latest:
                    found.append((number, start, start + length))
                    break
        return tuple(found)

    def _edges(self, found: Occurrences, cuts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> list[NDArray[np.bool_]]:
        """For the cuts before and then for those after: whether the affix's inner edges are token ends, and whether it is cut within."""
        kind, rows = self._kind_of[found.affix], []
        for ends in cuts:
            starts_there, ends_there = np.isin(found.start, ends), np.isin(found.end, ends)
            rows.append(np.select([kind == 0, kind == 1], [ends_there, starts_there & ends_there], starts_there))
            rows.append(np.searchsorted(ends, found.end, side="left") > np.searchsorted(ends, found.start, side="right"))
        return rows

    def summary(self) -> dict[str, Any]:
        """Shares by kind and for the most frequent affixes, as JSON."""
        by_kind = {kind: self._shares(self._counts[:, self._kind_of == number].sum(axis=1)) for number, kind in enumerate(KINDS)}
        frequent = [number for number in np.argsort(-self._counts[0], kind="stable")[:MOST_FREQUENT] if self._counts[0, number]]
        named = [{"kind": self._names[n][0], "affix": self._names[n][1], **self._shares(self._counts[:, n])} for n in frequent]
        return {"kinds": by_kind, "most_frequent": named}

    def _shares(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        occurrences, *others = counts.tolist()
        at_edge_before, within_before, at_edge_after, within_after = (round(x / occurrences, 6) if occurrences else None for x in others)
        return {
            "occurrences": occurrences,
            "boundary_at_edge": {"before": at_edge_before, "after": at_edge_after},
            "cut_within": {"before": within_before, "after": within_after},
        }
