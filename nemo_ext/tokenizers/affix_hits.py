"""Where affixes stand in a document's text: at a word's start, after its first consonant, at its end; or, blind, anywhere.

A document's bytes never change, whatever becomes of its tokens, so its hits are found once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.affix_lists import ANYWHERE, INFIX, PREFIX, SUFFIX, Affixes
from nemo_ext.tokenizers.characters import LETTER, MARK, class_at, is_inside, run_of, width
from nemo_ext.tokenizers.compiled import compiled, inlined
from nemo_ext.tokenizers.spelling import same_bytes

BLANK, HYPHEN = b" -"
SHORTEST_REST = 2  # bytes of a word beside its affix: no root has fewer letters
CONSONANTS = np.zeros(256, dtype=np.bool_)
CONSONANTS[list(b"bcdfghjklmnpqrstvwxyzBCDFGHJKLMNPQRSTVWXYZ")] = True
VOWELS = np.zeros(256, dtype=np.bool_)
VOWELS[list(b"aeiouAEIOU")] = True
NONE = -1


class Hits(NamedTuple):
    """Hit h of an affix: `hits[h]` is the next hit at the same byte, its start, its end and the number of the affix.

    The form lies from the byte that the hit is listed at to its end; its start is that byte or the space before it. `first[byte]` is a hit
    that is listed at a byte; -1 ends a list. Where none is, it is less than 0 by the distance to the next byte with one. `used` [1]
    counts the hits, also those that there was no room for. `pairs[byte]` is the distance to the next byte where a reduplication begins.
    """

    first: NDArray[np.int32]
    pairs: NDArray[np.int32]
    hits: NDArray[np.int32]
    used: NDArray[np.int64]


FOLLOWING, START, END, AFFIX = range(4)


def make_hits(text_bytes: int, room: int) -> Hits:
    """Room for `room` hits in texts of up to `text_bytes`."""
    first, pairs = np.empty((2, text_bytes), dtype=np.int32)
    return Hits(first, pairs, np.empty((room, 4), dtype=np.int32), np.zeros(1, dtype=np.int64))


@compiled
def find_hits(text: NDArray[np.uint8], affixes: Affixes, classes: NDArray[np.uint8], blind: bool, hits: Hits) -> bool:
    """Fill `hits` for a text; returns whether there was room."""
    hits.used[0] = 0
    for position in range(len(text)):
        hits.first[position] = NONE
    if blind:
        for position in range(len(text)):
            enter_forms(text, position, len(text), position, ANYWHERE, affixes, hits)
    else:
        find_positional(text, affixes, classes, hits)
    to_hit, to_pair = NONE, len(text)  # a distance that leads beyond the text
    for position in range(len(text) - 1, -1, -1):
        if hits.first[position] >= 0:
            to_hit = NONE
        else:
            hits.first[position] = to_hit
            to_hit -= 1
        to_pair = 0 if pair_at(text, position, len(text), blind) else to_pair + 1
        hits.pairs[position] = to_pair
    return hits.used[0] <= len(hits.hits)


@inlined
def pair_at(text: NDArray[np.uint8], position: int, end: int, blind: bool) -> np.int64:
    """Bytes of what stands at `position` twice in a row before `end`: consonant and vowel, blind any two characters; else 0."""
    if blind:
        if is_inside(text, position):
            return np.int64(0)
        middle = position + width(text, position, end)
        length = middle + (width(text, middle, end) if middle < end else np.int64(end)) - position
        return length if position + 2 * length <= end and same_bytes(text, position, text, position + length, length) else np.int64(0)
    if position + 4 > end or not CONSONANTS[text[position]] or not VOWELS[text[position + 1]]:
        return np.int64(0)
    same = folded(text[position]) == folded(text[position + 2]) and folded(text[position + 1]) == folded(text[position + 3])
    return np.int64(2 if same else 0)


@compiled
def find_positional(text: NDArray[np.uint8], affixes: Affixes, classes: NDArray[np.uint8], hits: Hits) -> None:
    """Hits by position, word by word."""
    position = 0
    while position < len(text):
        end = run_of(text, position, len(text), classes, LETTER, MARK)
        if end == position:
            position += width(text, position, len(text))
            continue
        hyphenated = end + 1 < len(text) and text[end] == HYPHEN and class_at(text, end + 1, len(text), classes) == LETTER
        start = position - 1 if position > 0 and text[position - 1] == BLANK else position
        enter_forms(text, position, end if hyphenated else end - SHORTEST_REST, start, PREFIX, affixes, hits)
        consonant = first_consonant(text, position, end)
        if consonant:
            enter_forms(text, position + consonant, end - 1, position + consonant, INFIX, affixes, hits)
        enter_suffixes(text, position + SHORTEST_REST, end, affixes, hits)
        position = end


@compiled
def first_consonant(text: NDArray[np.uint8], start: int, end: int) -> np.int64:
    """Bytes of the consonant that a word begins with, "ng" being one; 0 when it begins with a vowel."""
    if end - start > 2 and (text[start] | 0x20) == ord("n") and (text[start + 1] | 0x20) == ord("g"):
        return np.int64(2)
    return np.int64(1 if CONSONANTS[text[start]] else 0)


@inlined
def folded(byte: int) -> int:
    """A byte with A to Z in lower case."""
    return byte | 0x20 if ord("A") <= byte <= ord("Z") else byte


@compiled
def stands_at(text: NDArray[np.uint8], position: int, end: int, form: int, affixes: Affixes, fold: bool) -> np.int64:
    """End of the form in the text when it stands at `position` and ends by `end`, else -1."""
    start, length = affixes.offsets[form], affixes.offsets[form + 1] - affixes.offsets[form]
    if position + length > end:
        return np.int64(NONE)
    for step in range(length):
        byte = text[position + step]
        if (folded(byte) if fold else byte) != affixes.data[start + step]:
            return np.int64(NONE)
    return np.int64(position + length)


@compiled
def enter_forms(text: NDArray[np.uint8], position: int, end: int, start: int, kind: int, affixes: Affixes, hits: Hits) -> None:
    """Enter the hits of all forms of a kind that stand at `position` and end by `end`."""
    byte = np.int64(text[position] if kind == ANYWHERE else folded(text[position]))
    for form in range(affixes.first[kind, byte], affixes.first[kind, byte + 1]):
        stop = stands_at(text, position, end, form, affixes, kind != ANYWHERE)
        if stop > 0:
            enter(hits, position, start, stop, affixes.affix[form])


@compiled
def enter_suffixes(text: NDArray[np.uint8], earliest: int, end: int, affixes: Affixes, hits: Hits) -> None:
    """Enter the hits of the suffixes that end at `end` and begin at `earliest` or later."""
    for form in range(affixes.first[SUFFIX, 0], affixes.first[SUFFIX, 256]):
        position = end - (affixes.offsets[form + 1] - affixes.offsets[form])
        if position >= earliest and stands_at(text, position, end, form, affixes, True) == end:
            enter(hits, position, position, end, affixes.affix[form])


@compiled
def enter(hits: Hits, position: int, start: int, end: int, affix: int) -> None:
    """Add a hit, or, where there is no room, only count it."""
    hit = hits.used[0]
    if hit < len(hits.hits):
        row = hits.hits[hit]
        row[FOLLOWING], row[START], row[END], row[AFFIX] = hits.first[position], start, end, affix
        hits.first[position] = hit
    hits.used[0] = hit + 1
