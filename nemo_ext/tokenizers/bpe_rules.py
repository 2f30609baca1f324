"""What a BPE tokenizer over characters does to a text (Gemma's kind: U+2581 for a space, bytes for unknown characters), as arrays.

Only a tokenizer.json of which every part is understood is read; for any other there are no rules. Nothing merges over two bytes that no
merge has at its seam, so a text falls into units there; without such seams at spaces, units are words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.merging import merge_table
from nemo_ext.tokenizers.token_bytes import METASPACE

JOIN, ADDED = 1, 2  # bits of `links`
CODE_POINTS = 0x110000
NO_TOKEN, PLAIN_TEXT = -1, -2
SPACES_BECOME_METASPACE = {"type": "Replace", "pattern": {"String": " "}, "content": METASPACE}


class BpeRules(NamedTuple):
    """How text becomes tokens.

    `links` [256, 256]: JOIN where two neighbouring bytes may be merged over, ADDED where an added token may begin with the second one.
    `merge_keys`, `merges`: see `merging`. `character_ids` [0x110000] and `byte_ids` [256]: the tokens that merging starts from, or
    NO_TOKEN. Added token t is `added[added_offsets[t]:added_offsets[t + 1]]`; those that begin with byte b are `added_first[b]` to
    `added_first[b + 1]`, the longest first; `added_ids` has PLAIN_TEXT for control tokens, which text never becomes. `hold` [1]:
    whether this is all that there is to the tokenizer.
    """

    links: NDArray[np.uint8]
    merge_keys: NDArray[np.uint64]
    merges: NDArray[np.uint64]
    character_ids: NDArray[np.int32]
    byte_ids: NDArray[np.int32]
    added: NDArray[np.uint8]
    added_offsets: NDArray[np.int64]
    added_ids: NDArray[np.int32]
    added_first: NDArray[np.int64]
    hold: NDArray[np.bool_]


def is_understood(parsed: Mapping[str, Any], added_tokens: Iterable[Any]) -> bool:
    """Whether a tokenizer.json is of the kind that BpeRules describe. `added_tokens` are `tokenizers.AddedToken`."""
    model, before = parsed["model"], parsed.get("pre_tokenizer")
    unusual = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if model.get("type", "BPE") != "BPE" or "merges" not in model or not model.get("byte_fallback") or any(map(model.get, unusual)):
        return False
    if parsed.get("normalizer") != SPACES_BECOME_METASPACE or METASPACE not in model["vocab"]:
        return False
    cut = before and (before.get("type"), before.get("pattern"), before.get("invert", False))
    if cut not in (None, ("Split", {"String": " "}, False)):  # Gemma has a cut at spaces, of which its normalizer leaves none
        return False
    return not any(_is_matched_oddly(token) for token in added_tokens)


def _is_matched_oddly(token: Any) -> bool:
    return not token.special and (token.normalized or token.lstrip or token.rstrip or token.single_word)


def bpe_rules(model: Mapping[str, Any], added_tokens: Mapping[int, Any]) -> BpeRules:
    """The rules of a tokenizer that is understood, from its BPE model and `tokenizers.AddedToken` by id."""
    vocabulary = model["vocab"]
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    character_ids, byte_ids = _first_tokens(vocabulary)
    without = byte_ids < 0
    without[:0x80] &= character_ids[:0x80] < 0
    triples = [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in pairs]
    byte_tokens = set(byte_ids.tolist()) - {NO_TOKEN}
    unusual = without.any() or len({triple[:2] for triple in triples}) != len(triples) or any(byte_tokens & {*triple} for triple in triples)
    merges = np.array(triples, dtype=np.uint64).reshape(-1, 3)
    added, offsets, ids, first = _added(added_tokens)
    links = _links(vocabulary, merges)
    links[:, np.flatnonzero(np.diff(first))] |= ADDED
    table = merge_table(merges, np.arange(len(merges), dtype=np.uint64))
    return BpeRules(links, *table, character_ids, byte_ids, added, offsets, ids, first, np.array([not unusual]))


def _first_tokens(vocabulary: Mapping[str, int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens of single characters and of bytes. U+2581 stands for a space; where it stands in a text the rules do not hold."""
    characters = np.full(CODE_POINTS, NO_TOKEN, dtype=np.int32)
    for token, token_id in vocabulary.items():
        if len(token) == 1:
            characters[ord(token)] = token_id
    characters[ord(" ")] = vocabulary[METASPACE]
    return characters, np.array([vocabulary.get(f"<0x{byte:02X}>", NO_TOKEN) for byte in range(256)], dtype=np.int32)


def _links(vocabulary: Mapping[str, int], merges: NDArray[np.uint64]) -> NDArray[np.uint8]:
    links = np.zeros((256, 256), dtype=np.uint8)
    links[0x80:, 0x80:0xC0] = JOIN  # within a character
    first, last = np.zeros((2, max(vocabulary.values()) + 1), dtype=np.uint8)
    for token, token_id in vocabulary.items():
        spelled = token.replace(METASPACE, " ").encode("utf-8")
        if spelled:
            first[token_id], last[token_id] = spelled[0], spelled[-1]
    links[last[merges[:, 0]], first[merges[:, 1]]] = JOIN
    return links


def _added(tokens: Mapping[int, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Added tokens as they are found: in text as it is, from left to right, the longest of those that begin at a place.

    Control tokens are found, too, and passed over: no other token is looked for inside of one. Those that are looked for in normalised
    text hide nothing, for only control tokens may be (see `is_understood`).
    """
    literal = {number: token for number, token in tokens.items() if token.content and not token.normalized}
    found = [(token.content.encode("utf-8"), PLAIN_TEXT if token.special else number) for number, token in literal.items()]
    found.sort(key=lambda entry: (entry[0][0], -len(entry[0]), entry[0]))
    offsets = np.cumsum([0, *(len(spelled) for spelled, _ in found)], dtype=np.int64)
    first = np.searchsorted([spelled[0] for spelled, _ in found], np.arange(257)).astype(np.int64)
    data = np.frombuffer(b"".join(spelled for spelled, _ in found), dtype=np.uint8)
    return data, offsets, np.array([number for _, number in found], dtype=np.int32), first
