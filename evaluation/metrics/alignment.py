"""Finds the entities that a generated text marks as `[name | LABEL]` in the text it should repeat.

Both texts are cut into pieces (runs of letters and digits, single other characters) and aligned by a longest common subsequence.
A mark whose pieces do not all stand side by side in the source is not found there: the model changed the name or made it up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.entities import Entity
from evaluation.windows import IntArray

MARK = re.compile(r"\[([^\[\]|]+)\|([^\[\]|]+)\]")
PIECE = re.compile(r"\w+|[^\w\s]")
LEAST_SHARE = 0.5  # of the source's pieces; an output that repeats less of it is about something else
LONGEST_OUTPUT = 4  # times the source's pieces, so that a text without end costs little; what comes later is not aligned


@dataclass(frozen=True)
class AlignedOutput:
    """Entities found in the source, the labels of marks that were not, and the share of the source's pieces that was repeated."""

    entities: tuple[Entity, ...]
    misplaced: tuple[str, ...]
    share: float

    @property
    def is_aligned(self) -> bool:
        """Whether the output repeats enough of the source to be read."""
        return self.share >= LEAST_SHARE


def read_marks(output: str) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Pieces of a text without its marks, and of each mark the first piece, the end and the label."""
    pieces: list[str] = []
    marks = []
    position = 0
    for found in MARK.finditer(output):
        pieces += PIECE.findall(output[position : found.start()])
        start = len(pieces)
        pieces += PIECE.findall(found[1])
        marks.append((start, len(pieces), found[2].strip()))
        position = found.end()
    return pieces + PIECE.findall(output[position:]), marks


def align(source: Sequence[str], output: Sequence[str]) -> IntArray:
    """For each piece of `output` the number of its equal in `source`, -1 where it has none: a longest common subsequence."""
    numbers: dict[str, int] = {}
    left, right = (np.array([numbers.setdefault(piece, len(numbers)) for piece in pieces], dtype=np.int64) for pieces in (source, output))
    lengths = np.zeros((len(left) + 1, len(right) + 1), dtype=np.int32)
    for row, piece in enumerate(left):
        # Of (above), (above left, one longer where the pieces are equal) the longer, then the longest so far of the row.
        best = np.maximum(lengths[row, 1:], lengths[row, :-1] + (right == piece))
        lengths[row + 1, 1:] = np.maximum.accumulate(best)
    found = np.full(len(right), -1, dtype=np.int64)
    row, column = len(left), len(right)
    while row and column:
        if left[row - 1] == right[column - 1]:
            row, column = row - 1, column - 1
            found[column] = row
        elif lengths[row - 1, column] >= lengths[row, column - 1]:
            row -= 1
        else:
            column -= 1
    return found


def find_marks(words: Sequence[str], spaces: Sequence[bool], output: str, offset: int = 0) -> AlignedOutput:
    """Entities over `words` (the first has the number `offset`; `spaces`: whether a space follows) that `output` marks.

    An output that repeats less than LEAST_SHARE of the words' pieces has no entities; its marks are all misplaced, as is a second
    mark of a word.
    """
    text = "".join(word + " " * space for word, space in zip(words, spaces, strict=True))
    ends = np.cumsum([len(word) + space for word, space in zip(words, spaces, strict=True)])
    source = list(PIECE.finditer(text))
    pieces, marks = read_marks(output)
    place = np.full(len(pieces), -1, dtype=np.int64)
    kept = min(len(pieces), LONGEST_OUTPUT * len(source))
    place[:kept] = align([piece[0] for piece in source], pieces[:kept])
    share = float((place >= 0).sum() / max(1, len(source)))
    entities: list[Entity] = []
    misplaced = []
    for start, end, label in marks:
        at = place[start:end]
        entity = None
        if share >= LEAST_SHARE and len(at) and at[0] >= 0 and (np.diff(at) == 1).all():
            first, last = (int(np.searchsorted(ends, position, "right")) for position in (source[at[0]].start(), source[at[-1]].end() - 1))
            entity = Entity(offset + first, offset + last + 1, label)
        if entity is None or (entities and entities[-1].end > entity.start):
            misplaced.append(label)
        else:
            entities.append(entity)
    return AlignedOutput(tuple(entities), tuple(misplaced), share)
