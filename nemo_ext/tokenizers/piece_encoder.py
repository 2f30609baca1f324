"""Pieces of text to tokens in compiled code, as the tokenizer itself encodes the piece alone; what was encoded lately is remembered.

A piece falls into units, which nothing merges across: its pre-tokens, cut further between bytes that stand side by side in no token.
Where a piece begins or ends in the middle of a word, so does its first or last pre-token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.characters import character_classes, width
from nemo_ext.tokenizers.compiled import compiled, inlined
from nemo_ext.tokenizers.merging import merge_few
from nemo_ext.tokenizers.piece_rules import PieceRules
from nemo_ext.tokenizers.pretokens import pretoken_end
from nemo_ext.tokenizers.random_stream import mixed
from nemo_ext.tokenizers.spelling import Spelling, find_hashed, hash_bytes

ROWS = 1 << 16
KEY_WORDS, WORD_BYTES = 3, 8
KEY_BYTES = KEY_WORDS * WORD_BYTES - 1  # the last byte of a key holds the length
ROW_WORDS = 8  # with 5 ids after the key a row fills a cache line
BYTE_BITS, LENGTH_SHIFT = np.uint64(8), np.uint64(56)
MIXERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd and without pattern, as in xxHash
FAILED = np.int64(-1)


class Encoder(NamedTuple):
    """A Spelling and PieceRules in one, classes of characters, room to merge in, and the memory.

    `memory` [ROWS, ROW_WORDS]: a unit and its ids, the unit in the first three words, then each id + 1; 0 ends them. A unit is found in
    the row that its hash gives or not at all, and takes the place of another.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    slots: NDArray[np.uint64]
    rule: NDArray[np.int64]
    joinable: NDArray[np.bool_]
    merge_keys: NDArray[np.uint64]
    merges: NDArray[np.uint64]
    byte_ids: NDArray[np.int64]
    classes: NDArray[np.uint8]
    ranks: NDArray[np.uint64]
    memory: NDArray[np.uint64]


def make_encoder(spelling: Spelling, rules: PieceRules, longest_piece: int) -> Encoder:
    """An encoder that remembers nothing yet, for pieces of up to `longest_piece` bytes."""
    ranks, memory = np.empty(longest_piece, dtype=np.uint64), np.zeros((ROWS, ROW_WORDS), dtype=np.uint64)
    return Encoder(spelling.data, spelling.offsets, spelling.slots, *rules, character_classes(), ranks, memory)


@compiled
def encode_piece(encoder: Encoder, text: NDArray[np.uint8], start: int, end: int, out: NDArray[np.int32], count: int) -> np.int64:
    """Write the ids of `text[start:end]` into `out` from `count` on; returns the end of them, or FAILED when some text has no token.

    `out` needs room for an id a byte.
    """
    pattern, digits, joinable, memory = encoder.rule[0], encoder.rule[1], encoder.joinable, encoder.memory
    pretoken = start
    while start < end:
        if start >= pretoken:
            pretoken = pretoken_end(text, start, end, pattern, digits, encoder.classes)
        unit = start + 1
        while unit < pretoken and joinable[text[unit - 1], text[unit]]:
            unit += 1
        after = recall(memory, text, start, unit, out, count)
        if after == count:
            after = encode_unit(encoder, text, start, unit, out, count)
            if after == FAILED:
                return FAILED
            remember(memory, text, start, unit, out, count, after)
        start, count = unit, after
    return np.int64(count)


@inlined
def word_of(text: NDArray[np.uint8], start: int, end: int) -> np.uint64:
    """Up to eight bytes from `start` on, as one number."""
    word = np.uint64(0)
    for position in range(start, min(start + WORD_BYTES, end)):
        word = (word << BYTE_BITS) | np.uint64(text[position])
    return word


@inlined
def key_of(text: NDArray[np.uint8], start: int, end: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """A unit of up to KEY_BYTES bytes as three words, its length in the last; no two units have the same."""
    first, second = word_of(text, start, end), word_of(text, start + WORD_BYTES, end)
    return first, second, word_of(text, start + 2 * WORD_BYTES, end) | (np.uint64(end - start) << LENGTH_SHIFT)


@inlined
def recall(memory: NDArray[np.uint64], text: NDArray[np.uint8], start: int, end: int, out: NDArray[np.int32], count: int) -> np.int64:
    """Write the ids of a unit that is remembered into `out` from `count` on; returns the end of them, `count` when it is not."""
    if end - start <= KEY_BYTES:
        first, second, third = key_of(text, start, end)
        row = mixed(first + second * MIXERS[0] + third * MIXERS[1]) & np.uint64(ROWS - 1)
        if memory[row, 0] == first and memory[row, 1] == second and memory[row, 2] == third:
            word = KEY_WORDS
            while word < ROW_WORDS and memory[row, word]:
                out[count] = np.int64(memory[row, word]) - 1
                word, count = word + 1, count + 1
    return np.int64(count)


@compiled
def remember(
    memory: NDArray[np.uint64], text: NDArray[np.uint8], start: int, end: int, ids: NDArray[np.int32], first_id: int, last_id: int
) -> None:
    """Enter a unit with its ids, if there is room for them."""
    if end - start <= KEY_BYTES and last_id - first_id <= ROW_WORDS - KEY_WORDS:
        first, second, third = key_of(text, start, end)
        row = mixed(first + second * MIXERS[0] + third * MIXERS[1]) & np.uint64(ROWS - 1)
        memory[row, 0], memory[row, 1], memory[row, 2] = first, second, third
        for number in range(ROW_WORDS - KEY_WORDS):
            memory[row, KEY_WORDS + number] = np.uint64(ids[first_id + number] + 1) if first_id + number < last_id else np.uint64(0)


@compiled
def encode_unit(encoder: Encoder, text: NDArray[np.uint8], start: int, end: int, out: NDArray[np.int32], count: int) -> np.int64:
    """`encode_piece` for one unit, by the tokenizer's rule."""
    if len(encoder.merges) == 0:
        return longest_tokens(encoder, text, start, end, out, count)
    if encoder.rule[2]:
        token = find_token(encoder, text, start, end)
        if token >= 0:
            out[count] = token
            return np.int64(count + 1)
    symbols = first_symbols(encoder, text, start, end, out, count)
    if symbols == FAILED:
        return FAILED
    return merge_few(encoder.merge_keys, encoder.merges, out, count, symbols, encoder.ranks)


@compiled
def find_token(encoder: Encoder, text: NDArray[np.uint8], start: int, end: int) -> np.int64:
    """The ordinary token that spells `text[start:end]`, or -1."""
    return find_hashed(encoder.data, encoder.offsets, encoder.slots, hash_bytes(text, start, end), text, start, end)


@compiled
def longest_tokens(encoder: Encoder, text: NDArray[np.uint8], start: int, end: int, out: NDArray[np.int32], count: int) -> np.int64:
    """The longest token at the start, then the longest one after it, and so on (Schuster and Nakajima 2012, as BERT has it)."""
    while start < end:
        stop, token = end, find_token(encoder, text, start, end)
        while token < 0 and stop > start + 1:
            stop -= 1
            token = find_token(encoder, text, start, stop)
        if token < 0:
            return FAILED
        out[count] = token
        count, start = count + 1, stop
    return np.int64(count)


@compiled
def first_symbols(encoder: Encoder, text: NDArray[np.uint8], start: np.int64, end: int, out: NDArray[np.int32], count: int) -> np.int64:
    """The tokens of single bytes or characters that merging starts from; returns the end of them in `out`, or FAILED."""
    while start < end:
        token, step = encoder.byte_ids[text[start]], np.int64(1)
        if token < 0:
            step = width(text, start, end)
            token = find_token(encoder, text, start, start + step)
        if token < 0:
            return FAILED
        out[count] = token
        count, start = count + 1, start + step
    return np.int64(count)
