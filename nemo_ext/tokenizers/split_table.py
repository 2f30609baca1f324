"""Every way to split a token in two: all cuts of its spelling where both halves are tokens, found by hashing.

StochasTok (Sims et al. 2025, arXiv:2506.01687) splits by this table. It keeps all such cuts, not only the merge that made the token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.spelling import Spelling, find


class SplitTable(NamedTuple):
    """Token t splits into `left[k], right[k]` for every k from `offsets[t]` to `offsets[t + 1] - 1`, in order of the cut."""

    offsets: NDArray[np.int64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]


def build_split_table(spelling: Spelling) -> SplitTable:
    """The table of a vocabulary."""
    offsets = np.zeros(len(spelling.ordinary) + 1, dtype=np.int64)
    left, right = np.empty((2, len(spelling.data)), dtype=np.int32)  # no more splits than cuts
    find_splits(spelling, offsets, left, right)
    return SplitTable(offsets, left[: offsets[-1]].copy(), right[: offsets[-1]].copy())


@compiled
def find_splits(spelling: Spelling, offsets: NDArray[np.int64], left: NDArray[np.int32], right: NDArray[np.int32]) -> None:
    """Fill the three arrays of a SplitTable."""
    found = 0
    for token in range(len(spelling.ordinary)):
        start, end = spelling.offsets[token], spelling.offsets[token + 1]
        if spelling.ordinary[token]:
            for cut in range(start + 1, end):
                first = find(spelling, spelling.data, start, cut)
                second = find(spelling, spelling.data, cut, end) if first >= 0 else first
                if second >= 0:
                    left[found], right[found] = first, second
                    found += 1
        offsets[token + 1] = found
