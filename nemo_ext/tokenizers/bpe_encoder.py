"""Whole texts to tokens in compiled code, for tokenizers of which BpeRules tell everything; units that came lately are remembered.

That the ids are those of the tokenizer itself is argued in `bpe_rules` and `merging`, and tried once per tokenizer: on every token of the
vocabulary, every added token and characters of all planes. Texts with U+2581, which stands for a space, are left to the tokenizer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.files import sha256_of_file, sha256_of_json
from nemo_ext.tokenizers.array_cache import cached
from nemo_ext.tokenizers.bpe_rules import ADDED, JOIN, NO_TOKEN, PLAIN_TEXT, BpeRules, bpe_rules, is_understood
from nemo_ext.tokenizers.characters import width
from nemo_ext.tokenizers.compiled import compiled, sources_digest
from nemo_ext.tokenizers.merging import FEW, HEAP_ENTRIES, merge_few, merge_many
from nemo_ext.tokenizers.piece_encoder import ROW_WORDS, ROWS, recall, remember
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths
from nemo_ext.tokenizers.spelling import same_bytes
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer
from nemo_ext.tokenizers.token_bytes import METASPACE

METASPACE_BYTES = METASPACE.encode("utf-8")
SURROGATES = range(0xD800, 0xE000)
CHARACTER_STEP = 89  # of the code points that are tried: most are no token, and all of those go the same way
TRIED_TOGETHER = 1000
LEAD_BITS = np.array([0x7F, 0x7F, 0x1F, 0x0F, 0x07])  # of the first byte of a character, by its bytes: those of its code point


class Room(NamedTuple):
    """Room to merge units in, see `merging`, and the memory, see `piece_encoder`."""

    symbols: NDArray[np.int32]
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    heap: NDArray[np.uint64]
    memory: NDArray[np.uint64]


class BpeEncoder:
    """The ids of `tokenizer`, by compiled code."""

    name = "compiled"

    def __init__(self, tokenizer: TextTokenizer, rules: BpeRules) -> None:
        self._tokenizer, self._rules = tokenizer, rules
        self._memory = np.zeros((ROWS, ROW_WORDS), dtype=np.uint64)

    def encode_batch(self, texts: Sequence[str]) -> RaggedBatch:
        """Ids of every text."""
        spelled = [text.encode("utf-8") for text in texts]
        joined = b"".join(spelled)
        if METASPACE_BYTES in joined:
            if len(texts) == 1:
                return self._tokenizer.encode_batch(texts)
            alone = [self.encode_batch([text]) for text in texts]
            return from_lengths(np.concatenate([one.ids for one in alone]), np.array([len(one.ids) for one in alone]))
        lengths = np.fromiter(map(len, spelled), dtype=np.int64, count=len(spelled))
        limits, longest = from_lengths(np.zeros(0), lengths).offsets, int(lengths.max(initial=0))
        symbols, before, after = np.empty((3, longest), dtype=np.int32)
        room = Room(symbols, before, after, np.empty(HEAP_ENTRIES * longest, dtype=np.uint64), self._memory)
        ids, offsets = np.empty(len(joined), dtype=self._tokenizer.dtype), np.zeros_like(limits)
        encode_texts(np.frombuffer(joined, dtype=np.uint8), limits, self._rules, room, ids, offsets)
        return RaggedBatch(ids[: offsets[-1]].copy(), offsets)


def bpe_encoder(tokenizer: TextTokenizer) -> BpeEncoder | None:
    """An encoder for a tokenizer whose tokenizer.json is understood, else None. Its rules, once tried, are kept in the user's cache."""
    if not is_understood(tokenizer.parsed, tokenizer.added_tokens.values()):
        return None
    file = sha256_of_file(tokenizer.path / "tokenizer.json")
    key = sha256_of_json({"tokenizer": file, "tokenizers": version("tokenizers"), "sources": sources_digest()})
    rules = cached(BpeRules, key, lambda: _tried(tokenizer))
    return BpeEncoder(tokenizer, rules) if rules.hold[0] else None


def _tried(tokenizer: TextTokenizer) -> BpeRules:
    """The rules. They hold when they give the tokenizer's ids for every token, added token and many characters, alone and in a row."""
    rules = bpe_rules(tokenizer.parsed["model"], tokenizer.added_tokens)
    if rules.hold[0]:
        encoder = BpeEncoder(tokenizer, rules)
        for texts in _trial_texts(tokenizer):
            found, expected = encoder.encode_batch(texts), tokenizer.encode_batch(texts)
            if not (np.array_equal(found.ids, expected.ids) and np.array_equal(found.offsets, expected.offsets)):
                rules.hold[0] = False
                break
    return rules


def _trial_texts(tokenizer: TextTokenizer) -> Iterator[list[str]]:
    tokens = [token.replace(METASPACE, " ") for token in tokenizer.parsed["model"]["vocab"]]
    added = [token.content for token in tokenizer.added_tokens.values() if METASPACE not in token.content]
    characters = [chr(point) for point in range(0, sys.maxunicode, CHARACTER_STEP) if point not in SURROGATES and chr(point) != METASPACE]
    parts = [*tokens, *added, *characters]
    for start in range(0, len(parts), TRIED_TOGETHER):
        tried = parts[start : start + TRIED_TOGETHER]
        yield [*tried, "".join(tried), " a".join(tried)]


@compiled
def encode_texts(
    text: NDArray[np.uint8], limits: NDArray[np.int64], rules: BpeRules, room: Room, ids: NDArray[Any], ends: NDArray[np.int64]
) -> None:
    """Write the ids of the texts between `limits` into `ids`, and where those of each end into `ends`."""
    count = np.int64(0)
    for number in range(len(limits) - 1):
        position, end, passed = limits[number], limits[number + 1], limits[number]
        while position < end:
            if position >= passed and rules.added_first[text[position]] < rules.added_first[text[position] + 1]:
                added = added_at(text, position, end, rules)
                length = rules.added_offsets[added + 1] - rules.added_offsets[added] if added >= 0 else 0
                if added >= 0 and rules.added_ids[added] != PLAIN_TEXT:
                    ids[count] = rules.added_ids[added]
                    position, count = position + length, count + 1
                    continue
                passed = position + length
            unit, passed = unit_end(text, position, end, passed, rules)
            after = recall(room.memory, text, position, unit, ids, count)
            if after == count:
                after = encode_unit(text, position, unit, rules, room, ids, count)
                remember(room.memory, text, position, unit, ids, count, after)
            position, count = unit, after
        ends[number + 1] = count


@compiled
def added_at(text: NDArray[np.uint8], position: int, end: int, rules: BpeRules) -> np.int64:
    """The longest added token that begins at `position`, or NO_TOKEN."""
    byte = np.int64(text[position])
    for token in range(rules.added_first[byte], rules.added_first[byte + 1]):
        first, length = rules.added_offsets[token], rules.added_offsets[token + 1] - rules.added_offsets[token]
        if length <= end - position and same_bytes(text, position, rules.added, first, length):
            return np.int64(token)
    return np.int64(NO_TOKEN)


@compiled
def unit_end(text: NDArray[np.uint8], start: int, end: int, passed: np.int64, rules: BpeRules) -> tuple[np.int64, np.int64]:
    """Where the unit that begins at `start` ends, and up to where control tokens were passed over (at first, `passed`)."""
    position = np.int64(start + 1)
    while position < end:
        link = rules.links[text[position - 1], text[position]]
        if link != JOIN:
            if link & ADDED and position >= passed:
                added = added_at(text, position, end, rules)
                if added >= 0 and rules.added_ids[added] != PLAIN_TEXT:
                    break
                if added >= 0:
                    passed = position + rules.added_offsets[added + 1] - rules.added_offsets[added]
            if not link & JOIN:
                break
        position += 1
    return position, np.int64(passed)


@compiled
def encode_unit(text: NDArray[np.uint8], start: int, end: int, rules: BpeRules, room: Room, ids: NDArray[Any], count: np.int64) -> np.int64:
    """Write the ids of a unit into `ids` from `count` on; returns the end of them."""
    symbols = np.int64(0)
    while start < end:
        step = width(text, start, end)
        point = np.int64(text[start]) & LEAD_BITS[step]
        for place in range(start + 1, start + step):
            point = (point << 6) | (np.int64(text[place]) & 0x3F)
        token = rules.character_ids[point]
        if token >= 0:
            room.symbols[symbols] = token
            symbols += 1
        else:
            for place in range(start, start + step):
                room.symbols[symbols] = rules.byte_ids[text[place]]
                symbols += 1
        start += step
    if symbols < FEW:
        symbols = merge_few(rules.merge_keys, rules.merges, room.symbols, 0, symbols, room.heap)
    else:
        symbols = merge_many(rules.merge_keys, rules.merges, room.symbols, symbols, room.heap, room.before, room.after)
    for number in range(symbols):
        ids[count + number] = room.symbols[number]
    return count + symbols
