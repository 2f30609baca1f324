"""Characters in UTF-8 bytes for compiled code: their limits, their code points, and which of them are letters."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled, inlined

OTHER, LETTER, NUMBER, SPACE, MARK = range(5)
CLASSIFIED = 0x40000  # beyond it there are private characters and variation selectors, which are OTHER
# Unicode's White_Space property; str.isspace counts four control characters more
SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


def character_classes() -> NDArray[np.uint8]:
    """Class of every code point below CLASSIFIED, by general category: L, N, M, white space, other."""
    by_category = {"L": LETTER, "N": NUMBER, "M": MARK}
    classes = [by_category.get(unicodedata.category(chr(point))[0], OTHER) for point in range(CLASSIFIED)]
    table = np.array(classes, dtype=np.uint8)
    table[[ord(space) for space in SPACES]] = SPACE
    return table


@inlined
def is_inside(text: NDArray[np.uint8], position: int) -> bool:
    """Whether `position` lies within a character, and not before its first byte or at the end of the text."""
    return position < len(text) and (text[position] & 0xC0) == 0x80


@inlined
def width(text: NDArray[np.uint8], position: int, end: int) -> np.int64:
    """Bytes of the character at `position`, none of them at or beyond `end`."""
    step = np.int64(1)
    if text[position] < 0x80:
        return step
    while position + step < end and (text[position + step] & 0xC0) == 0x80:
        step += 1
    return step


@inlined
def class_at(text: NDArray[np.uint8], position: int, end: int, classes: NDArray[np.uint8]) -> np.uint8:
    """Class of the character at `position`; of bytes that are no UTF-8, OTHER."""
    lead = np.int64(text[position])
    if lead < 0x80:
        return classes[lead]
    bytes_left = width(text, position, end) - 1
    if bytes_left < 1 or bytes_left > 3 or lead < 0xC0:
        return np.uint8(OTHER)
    point = lead & (0x3F >> bytes_left)
    for step in range(1, bytes_left + 1):
        point = (point << 6) | (np.int64(text[position + step]) & 0x3F)
    return classes[point] if point < len(classes) else np.uint8(OTHER)


@compiled
def run_of(text: NDArray[np.uint8], position: int, end: int, classes: NDArray[np.uint8], one: int, other: int) -> np.int64:
    """End of the run of characters of the classes `one` or `other` that begins at `position`; at most `end`."""
    while position < end:
        kind = class_at(text, position, end, classes)
        if kind != one and kind != other:
            break
        position += width(text, position, end)
    return np.int64(position)
