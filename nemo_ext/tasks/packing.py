"""Which pieces of documents make up which row of a batch, epoch after epoch: every token of every document once in each.

A document that is longer than a piece may be is cut into several; a piece has the tokens that the tokenizer's template puts around a
text. Pieces are shuffled by (seed, epoch). Packed, each goes into the fullest of a few open rows that still has room (best fit with
bounded space: Csirik and Johnson 2001), so pieces stay whole, and rows stay as random as the order of pieces. Unpacked, each is a row.

The index is made once, for as many rows as a run consumes, and kept in a file. A longer run extends it; nothing moves.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.errors import DataError
from nemo_ext.common.files import atomic_file
from nemo_ext.common.locks import locked_file
from nemo_ext.tokenizers.compiled import compiled

OPEN_ROWS = 64  # more fill rows no better: of lognormal lengths around 400 tokens, 8192-token rows are 99.9 % full

logger = logging.getLogger(__name__)


class Pieces:
    """The pieces of documents with `content` [documents] tokens: at most `longest` tokens each, `frame` of which are the template's."""

    def __init__(self, content: NDArray[Any], longest: int, frame: int) -> None:
        assert longest > frame, "checked before the run began"
        self.content, self.capacity, self.frame = content.astype(np.int64), longest - frame, frame
        per_document = -(-self.content // self.capacity)
        self._ends = np.cumsum(per_document)
        self.count = int(self._ends[-1]) if len(per_document) else 0
        self.cut_documents = int((per_document > 1).sum())

    def locate(self, pieces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Document, offset in its content, and tokens of content, of each of `pieces`."""
        documents = np.searchsorted(self._ends, pieces, side="right")
        before = np.where(documents > 0, self._ends[documents - 1], 0)
        offsets = (pieces - before) * self.capacity
        return documents, offsets, np.minimum(self.content[documents] - offsets, self.capacity)

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every piece [pieces], its frame included."""
        return self.locate(np.arange(self.count))[2] + self.frame


@dataclass(frozen=True)
class Row:
    """One row of a batch: which pieces, in which epoch."""

    epoch: int
    pieces: NDArray[np.int64]


class RowIndex:
    """Rows of `pieces`, numbered without end; `capacity` is the tokens of a packed row, None for a row per piece.

    The file holds int64 numbers: the number of rows; where each row begins among the pieces, and how many tokens come before it, both
    with the end of the last row; then the pieces of one epoch after another.
    """

    def __init__(self, pieces: Pieces, capacity: int | None, seed: int, file: Path) -> None:
        self.pieces, self._capacity, self._seed, self._file = pieces, capacity, seed, file
        self._read(np.zeros(3, dtype=np.int64))

    def _read(self, content: NDArray[np.int64]) -> None:
        rows = int(content[0])
        self._starts, self._tokens, self._order = np.split(content[1:], [rows + 1, 2 * rows + 2])

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def epochs(self) -> int:
        """Whole epochs that the index covers."""
        return len(self._order) // self.pieces.count

    def require(self, rows: int) -> None:
        """Make the index cover at least `rows` rows, from its file as far as that goes. Raises DataError when there are no tokens."""
        if not self.pieces.count:
            raise DataError("A split holds no tokens to learn from, only empty documents. Prepare the dataset again from text.")
        self._read_file()
        if len(self) >= rows:
            return
        with locked_file(self._file.with_suffix(".lock"), wait=True):  # runs may share an index: none may shorten it under another
            self._read_file()
            if len(self) >= rows:
                return
            content = self._extended(rows)
            with atomic_file(self._file, "wb") as handle:
                np.save(handle, content)
        self._read(content)  # not from the file, which another run may have replaced where there are no locks

    def _read_file(self) -> None:
        if self._file.is_file():
            self._read(np.load(self._file, mmap_mode="r"))

    def row(self, number: int) -> Row:
        """Row `number`."""
        start, end = int(self._starts[number]), int(self._starts[number + 1])
        return Row(start // self.pieces.count, self._order[start:end])

    def tokens(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """Tokens of each of the rows `numbers`."""
        return self._tokens[numbers + 1] - self._tokens[numbers]

    def first_epoch(self) -> tuple[int, int]:
        """Rows and tokens of one epoch; the rows of other epochs may be one more or less."""
        rows = int(np.searchsorted(self._starts, self.pieces.count))
        return rows, int(self._tokens[rows])

    def _extended(self, rows: int) -> NDArray[np.int64]:
        lengths = self.pieces.lengths()
        starts, tokens, order = [self._starts], [self._tokens], [self._order]
        known, epoch = len(self), self.epochs
        while known < rows:
            shuffled = np.random.default_rng([self._seed, epoch]).permutation(self.pieces.count)
            row_of = packed_rows(lengths[shuffled], self._capacity) if self._capacity else np.arange(self.pieces.count)
            by_row = np.argsort(row_of, kind="stable")
            ends = np.cumsum(np.bincount(row_of))
            order.append(shuffled[by_row])
            starts.append(epoch * self.pieces.count + ends)
            tokens.append(tokens[-1][-1] + np.cumsum(lengths[order[-1]])[ends - 1])
            known, epoch = known + len(ends), epoch + 1
        return np.concatenate([np.array([known]), *starts, *tokens, *order])


def packed_rows(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """The row [items] of each item, in rows of at most `capacity` tokens, numbered in the order in which they are opened."""
    rows = np.empty(len(lengths), dtype=np.int64)
    fill_rows(lengths, capacity, rows, np.zeros(OPEN_ROWS, dtype=np.int64), np.zeros(OPEN_ROWS, dtype=np.int64))
    return rows


@compiled
def fill_rows(
    lengths: NDArray[np.int64], capacity: int, rows: NDArray[np.int64], space: NDArray[np.int64], numbers: NDArray[np.int64]
) -> None:
    """Write the row of each item into `rows`; `space` and `numbers` [open rows] hold the open ones' room and number."""
    opened = 0
    for item in range(len(lengths)):
        best, fullest = -1, 0
        for place in range(min(opened, len(space))):
            if space[place] >= lengths[item] and (best < 0 or space[place] < space[best]):
                best = place
            if space[place] < space[fullest]:
                fullest = place
        if best < 0:
            best = opened if opened < len(space) else fullest
            space[best], numbers[best] = capacity, opened
            opened += 1
        space[best] -= lengths[item]
        rows[item] = numbers[best]
