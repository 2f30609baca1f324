"""A document's tokens as a list that is cut anew in place: slots linked in the order of the text, of which the first `used` are taken.

So a uniform slot is a uniform token, and replacing some tokens by others moves nothing but them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers import affix_hits
from nemo_ext.tokenizers.affix_hits import BLANK, Hits
from nemo_ext.tokenizers.characters import is_inside
from nemo_ext.tokenizers.compiled import compiled

TOKEN, START, END, PREVIOUS, FOLLOWING, FLAGS = range(6)  # columns of `tokens`
USED, HEAD = range(2)  # places in `ends`
ORDINARY, BEGINS_CHARACTER, ENDS_CHARACTER, AFFIX = 1, 2, 4, 8  # flags
NOWHERE = -1
HIT_FOLLOWING, HIT_START, HIT_END = affix_hits.FOLLOWING, affix_hits.START, affix_hits.END


class Document(NamedTuple):
    """A document's bytes, the affixes in them, and its tokens.

    `tokens` [slots, 6]: an id, the bytes it stands for, the slots before and after it, and flags. `ends` [2]: the slots taken, and the
    one that is first in the text. `sizes` [vocab]: bytes that a token spells, less than 0 (-1 - bytes) when it is not ordinary.
    """

    text: NDArray[np.uint8]
    hits: Hits
    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int32]


@compiled
def fill(document: Document, ids: NDArray[np.int32]) -> None:
    """Make `ids` the document's tokens."""
    tokens, start = document.tokens, np.int64(0)
    for slot in range(len(ids)):
        tokens[slot, PREVIOUS], tokens[slot, FOLLOWING] = slot - 1, slot + 1 if slot + 1 < len(ids) else NOWHERE
        start = put(document, slot, ids[slot], start)
    document.ends[USED], document.ends[HEAD] = len(ids), 0


@compiled
def put(document: Document, slot: int, token: int, start: int) -> np.int64:
    """Put a token that begins at byte `start` into a slot; returns the byte where it ends."""
    size, flags = np.int64(document.sizes[token]), 0
    end = start + (size if size >= 0 else -1 - size)
    if size > 0:
        flags = ORDINARY
        if not is_inside(document.text, start):
            flags |= BEGINS_CHARACTER
        if not is_inside(document.text, end):
            flags |= ENDS_CHARACTER
        if is_affix(document.text, document.hits, start, end):
            flags |= AFFIX
    row = document.tokens[slot]
    row[TOKEN], row[START], row[END], row[FLAGS] = token, start, end, flags
    return np.int64(end)


@compiled
def is_affix(text: NDArray[np.uint8], hits: Hits, start: int, end: int) -> bool:
    """Whether the bytes from `start` to `end` are an affix, with or without the space before it."""
    hit = hits.first[start]
    while hit >= 0:
        if hits.hits[hit, HIT_END] == end:
            return True
        hit = hits.hits[hit, HIT_FOLLOWING]
    if text[start] == BLANK and start + 1 < end:
        hit = hits.first[start + 1]
        while hit >= 0:
            if hits.hits[hit, HIT_END] == end and hits.hits[hit, HIT_START] == start:
                return True
            hit = hits.hits[hit, HIT_FOLLOWING]
    return False


@compiled
def split(document: Document, slot: int, left: int, right: int) -> None:
    """Replace the token of a slot by two."""
    tokens, added = document.tokens, document.ends[USED]
    after = tokens[slot, FOLLOWING]
    put(document, added, right, put(document, slot, left, tokens[slot, START]))
    link(document, slot, added)
    link(document, added, after)
    document.ends[USED] = added + 1


@compiled
def replace(document: Document, window: NDArray[np.int32], size: int, ids: NDArray[np.int32], count: int) -> None:
    """Replace the tokens of the neighbouring slots `window[:size]` by `ids[:count]`, which spell the same. Changes `window`."""
    tokens, used = document.tokens, document.ends[USED]
    last, after = np.int64(tokens[window[0], PREVIOUS]), tokens[window[size - 1], FOLLOWING]
    start = np.int64(tokens[window[0], START])
    for number in range(count):
        slot = np.int64(window[number]) if number < size else used + number - size
        start = put(document, slot, ids[number], start)
        link(document, last, slot)
        last = slot
    link(document, last, after)
    if count >= size:
        document.ends[USED] = used + count - size
    else:
        release(document, window, count, size)


@compiled
def link(document: Document, left: int, right: int) -> None:
    """Make `right` follow `left`; either may be NOWHERE."""
    if left >= 0:
        document.tokens[left, FOLLOWING] = right
    else:
        document.ends[HEAD] = right
    if right >= 0:
        document.tokens[right, PREVIOUS] = left


@compiled
def release(document: Document, slots: NDArray[np.int32], first: int, end: int) -> None:
    """Free `slots[first:end]`, which are linked no more, filling each with the last slot taken. Changes their order."""
    for number in range(first, end):
        largest = number  # so that the last slot taken is this one, or none of those to be freed
        for other in range(number + 1, end):
            if slots[other] > slots[largest]:
                largest = other
        free, slots[largest] = slots[largest], slots[number]
        moved = document.ends[USED] - 1
        document.ends[USED] = moved
        if moved != free:
            for column in range(6):
                document.tokens[free, column] = document.tokens[moved, column]
            link(document, document.tokens[moved, PREVIOUS], free)
            link(document, free, document.tokens[moved, FOLLOWING])


@compiled
def write_out(document: Document, after: NDArray[np.int32], write: int) -> np.int64:
    """Write the tokens in order into `after` from `write` on; returns the end of them."""
    slot = document.ends[HEAD]
    for _ in range(document.ends[USED]):
        after[write] = document.tokens[slot, TOKEN]
        write, slot = write + 1, np.int64(document.tokens[slot, FOLLOWING])
    return np.int64(write)
