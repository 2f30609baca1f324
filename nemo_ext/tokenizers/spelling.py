"""What every token spells, as flat arrays for compiled code, and the way back from bytes to a token.

Two series of ids are the same text exactly when their spellings, joined, are the same bytes. For tokenizers that keep the spaces
these are the bytes of the text. WordPiece tokens that begin a word are spelled with a space before them, so equal spellings mean
equal words, cut at the same places.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.token_bytes import BYTE_TOKEN, byte_alphabet, bytes_of_tokens, decoder_steps

UNUSED_TOKEN = re.compile(r"\[unused\d+\]|<unused_?\d+>|<\|reserved_[a-z_]*\d+\|>")
FNV_START = np.uint64(0xCBF29CE484222325)  # FNV-1a, Fowler, Noll and Vo
FNV_PRIME = np.uint64(0x100000001B3)
FOLD = np.uint64(29)
TOKEN_BITS = np.uint64(0xFFFFFFFF)  # of a slot: the token's id + 1, so that an empty slot is 0; above them the upper half of the hash
NO_TOKEN = np.int64(-1)


class Spelling(NamedTuple):
    """Token t spells `data[offsets[t]:offsets[t + 1]]`, in UTF-8 bytes or parts of them.

    `ordinary` [vocab] is false for tokens that are never split and never made: added and special tokens, unused ones, byte-fallback
    tokens, ids without a token. `slots` is a hash table of the ordinary tokens by what they spell, see `find`.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    ordinary: NDArray[np.bool_]
    slots: NDArray[np.uint64]


def make_spelling(spelled: Sequence[bytes], ordinary: NDArray[np.bool_]) -> Spelling:
    """The arrays for tokens that spell `spelled`. Empty tokens are not ordinary; of two tokens that spell the same the first is found."""
    data = np.frombuffer(b"".join(spelled), dtype=np.uint8)
    lengths = np.fromiter(map(len, spelled), dtype=np.int64, count=len(spelled))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    ordinary = ordinary & (lengths > 0)
    slots = np.zeros(1 << max(4, int(2 * ordinary.sum()).bit_length()), dtype=np.uint64)
    fill_slots(data, offsets, ordinary, slots)
    return Spelling(data, offsets, ordinary, slots)


def spell_vocabulary(
    decoder: Mapping[str, Any] | None, vocabulary: Mapping[str, int], added: Mapping[int, str], specials: Collection[str]
) -> Spelling:
    """The spelling of a tokenizer.json's vocabulary. Raises DataError when its tokens spell neither text nor words."""
    steps = {step["type"]: step for step in decoder_steps(decoder)}
    if "WordPiece" in steps:
        spelled = _word_pieces(vocabulary, steps["WordPiece"]["prefix"])
    else:
        spelled = bytes_of_tokens(decoder, vocabulary, added)
    ordinary = np.zeros(len(spelled), dtype=bool)
    ordinary[list(vocabulary.values())] = True
    ordinary[list(added)] = False
    alphabet = byte_alphabet().keys() if "ByteLevel" in steps else None
    for token, token_id in vocabulary.items():
        is_byte = "ByteFallback" in steps and BYTE_TOKEN.match(token)
        is_literal = alphabet is not None and not alphabet >= set(token)
        if is_byte or is_literal or token in specials or UNUSED_TOKEN.fullmatch(token):
            ordinary[token_id] = False
    return make_spelling(spelled, ordinary)


def _word_pieces(vocabulary: Mapping[str, int], prefix: str) -> list[bytes]:
    spelled = [b""] * (max(vocabulary.values()) + 1)
    for token, token_id in vocabulary.items():
        text = token.removeprefix(prefix) if token.startswith(prefix) else " " + token
        spelled[token_id] = text.encode("utf-8")
    return spelled


@compiled
def hash_bytes(data: NDArray[np.uint8], start: int, end: int) -> np.uint64:
    """FNV-1a of `data[start:end]`, folded so that its low bits serve as a place in a table."""
    value = FNV_START
    for position in range(start, end):
        value = (value ^ np.uint64(data[position])) * FNV_PRIME
    return value ^ (value >> FOLD)


@compiled
def same_bytes(left: NDArray[np.uint8], left_start: int, right: NDArray[np.uint8], right_start: int, length: int) -> bool:
    """Whether `length` bytes from `left_start` on equal those from `right_start` on."""
    for position in range(length):  # noqa: SIM110  compiled code has no all()
        if left[left_start + position] != right[right_start + position]:
            return False
    return True


@compiled
def fill_slots(data: NDArray[np.uint8], offsets: NDArray[np.int64], ordinary: NDArray[np.bool_], slots: NDArray[np.uint64]) -> None:
    """Enter every ordinary token into the hash table `slots` (open addressing, a power of two long, filled to at most a half)."""
    mask = np.uint64(len(slots) - 1)
    for token in range(len(ordinary)):
        if not ordinary[token]:
            continue
        hashed = hash_bytes(data, offsets[token], offsets[token + 1])
        if find_hashed(data, offsets, slots, hashed, data, offsets[token], offsets[token + 1]) < 0:
            place = hashed & mask
            while slots[place]:
                place = (place + np.uint64(1)) & mask
            slots[place] = (hashed & ~TOKEN_BITS) | np.uint64(token + 1)


@compiled
def find_hashed(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    slots: NDArray[np.uint64],
    hashed: np.uint64,
    text: NDArray[np.uint8],
    start: int,
    end: int,
) -> np.int64:
    """The token that spells `text[start:end]`, whose hash is `hashed`, or -1."""
    mask = np.uint64(len(slots) - 1)
    place = hashed & mask
    while slots[place]:
        if (slots[place] ^ hashed) <= TOKEN_BITS:
            token = np.int64(slots[place] & TOKEN_BITS) - 1
            first = offsets[token]
            if offsets[token + 1] - first == end - start and same_bytes(text, start, data, first, end - start):
                return token
        place = (place + np.uint64(1)) & mask
    return NO_TOKEN


@compiled
def find(spelling: Spelling, text: NDArray[np.uint8], start: int, end: int) -> np.int64:
    """The ordinary token that spells `text[start:end]`, or -1."""
    return find_hashed(spelling.data, spelling.offsets, spelling.slots, hash_bytes(text, start, end), text, start, end)
