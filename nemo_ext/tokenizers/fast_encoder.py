"""The fastest encoder that gives the ids of a tokenizer: tiktoken for byte-level BPE of an understood shape, compiled code for BPE over
characters (see `bpe_encoder`), else the tokenizer itself.

tiktoken merges the pair whose joined bytes have the lowest rank; Hugging Face merges the listed pair with the lowest number. Both
give the same ids when ranks follow the list of merges and every merged token, encoded alone, is one token: BPE inside a token's
bytes does not depend on what stands around them until a merge crosses their border, so the last step that makes the token is always
the listed pair. That is checked for every token. What is left are the two engines' Unicode tables: every code point is tried in both,
and a text with one on which they differ, or that would be normalised, or that spells an added token, goes to the tokenizer.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nemo_ext.common.files import sha256_of_json
from nemo_ext.tokenizers.array_cache import cached
from nemo_ext.tokenizers.cutting import byte_level_pattern
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer
from nemo_ext.tokenizers.token_bytes import byte_alphabet

BYTES = 256


class FastEncoder(Protocol):
    """Texts to ids, as `TextTokenizer.encode_batch`; `name` is for the record."""

    name: str

    def encode_batch(self, texts: Sequence[str]) -> RaggedBatch:
        """Ids of every text."""
        ...


class Shape(NamedTuple):
    """A byte-level BPE tokenizer as tiktoken wants it. `tokens` and `ids` are in the order in which tokens are made."""

    pattern: str
    tokens: list[bytes]
    ids: NDArray[np.int64]
    added: list[str]
    normalizer: str | None


class UnicodeProof(NamedTuple):
    """Whether both engines cut text alike around each code point, [0x110000]."""

    alike: NDArray[np.bool_]


class TiktokenEncoder:
    """The ids of `tokenizer`, by tiktoken wherever that is proved to give them."""

    name = "tiktoken"

    def __init__(self, tokenizer: TextTokenizer, shape: Shape, proof: UnicodeProof) -> None:
        self._tokenizer, self._alike, self._normalizer = tokenizer, proof.alike, shape.normalizer
        self._encoding = _encoding(shape.pattern, shape.tokens)
        self._ids = shape.ids.astype(tokenizer.dtype)
        self._added = re.compile("|".join(map(re.escape, shape.added))) if shape.added else None

    def encode_batch(self, texts: Sequence[str]) -> RaggedBatch:
        """Ids of every text."""
        arrays = [self._encode(text) for text in texts]
        flat = np.concatenate([np.zeros(0, self._tokenizer.dtype), *arrays])
        return from_lengths(flat, np.fromiter(map(len, arrays), np.int64, len(arrays)))

    def _encode(self, text: str) -> NDArray[Any]:
        if self.understands(text):
            try:
                return self._ids[self._encoding.encode_to_numpy(text, disallowed_special=())]
            except ValueError:  # a run of some 100,000 spaces exhausts the stack of its regular expressions
                pass
        return self._tokenizer.encode_batch([text]).ids

    def understands(self, text: str) -> bool:
        """Whether tiktoken is proved to give the ids of this text."""
        if self._added is not None and self._added.search(text):
            return False
        if text.isascii():
            return True
        if self._normalizer is not None and not unicodedata.is_normalized("NFC", text):
            return False
        return bool(self._alike[np.frombuffer(text.encode("utf-32-le"), "<u4")].all())


def fast_encoder(tokenizer: TextTokenizer) -> FastEncoder | None:
    """An encoder for a tokenizer of an understood shape, else None. The proof takes seconds once and is kept in the user's cache."""
    if not (tokenizer.path / "tokenizer.json").is_file():  # a tokenizer of another format
        return None
    if tokenizer.parsed["model"].get("byte_fallback"):
        from nemo_ext.tokenizers.bpe_encoder import bpe_encoder  # brings numba, which other tokenizers do without

        return bpe_encoder(tokenizer)
    shape = _shape(tokenizer.parsed)
    if shape is None:
        return None
    versions = {name: version(name) for name in ("tokenizers", "tiktoken")} | {"unicode": unicodedata.unidata_version}
    key = sha256_of_json({"pattern": shape.pattern, "normalizer": shape.normalizer, "versions": versions})
    return TiktokenEncoder(tokenizer, shape, cached(UnicodeProof, key, lambda: _prove(tokenizer.parsed, shape)))


def _encoding(pattern: str, tokens: Sequence[bytes]) -> Any:
    import tiktoken

    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding("sibol", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _shape(parsed: Mapping[str, Any]) -> Shape | None:
    """None when anything about the tokenizer is unusual."""
    pattern, model = byte_level_pattern(parsed), parsed["model"]
    usual = not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"))
    normalizer = (parsed.get("normalizer") or {}).get("type")
    if pattern is None or not usual or "merges" not in model or normalizer not in (None, "NFC"):
        return None
    tokens = _tokens(model)
    if tokens is None or not _each_is_one_token(parsed, tokens):
        return None
    alphabet = byte_alphabet()
    spelled = [bytes(alphabet[character] for character in token) for token in tokens]
    added = [token["content"] for token in parsed.get("added_tokens") or [] if not token.get("special")]
    return Shape(pattern, spelled, np.array([model["vocab"][token] for token in tokens]), added, normalizer)


def _tokens(model: Mapping[str, Any]) -> list[str] | None:
    """Tokens in the order in which they are made: bytes, then merges. None unless each is made in one way and is in the vocabulary."""
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    tokens, vocabulary = [*byte_alphabet(), *(left + right for left, right in merges)], model["vocab"]
    if len(set(tokens)) != len(tokens) or not all(token in vocabulary for token in tokens):
        return None
    spelled_otherwise = (token for token in vocabulary.keys() - set(tokens) if set(token) <= byte_alphabet().keys())
    return None if model.get("ignore_merges") and any(spelled_otherwise) else tokens


def _each_is_one_token(parsed: Mapping[str, Any], tokens: list[str]) -> bool:
    model = {**parsed["model"], "ignore_merges": False}
    alone = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"))
    merger = Tokenizer.from_str(json.dumps({"version": "1.0", **alone, "added_tokens": [], "model": model}))
    return all(len(encoding.ids) == 1 for encoding in merger.encode_batch_fast(tokens, add_special_tokens=False))


def _prove(parsed: Mapping[str, Any], shape: Shape) -> UnicodeProof:
    """Try every code point, with a vocabulary in which any two bytes merge, so that every difference in the cuts shows in the ids."""
    points = [point for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point)) not in ("Cn", "Co", "Cs")]
    texts = [_around(chr(point)) for point in points]
    characters = {byte: character for character, byte in byte_alphabet().items()}
    pairs = [(first, second) for first in range(BYTES) for second in range(BYTES)]
    vocabulary = {characters[byte]: byte for byte in range(BYTES)}
    vocabulary |= {characters[first] + characters[second]: BYTES + place for place, (first, second) in enumerate(pairs)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [[characters[first], characters[second]] for first, second in pairs]}
    theirs = Tokenizer.from_str(json.dumps({**parsed, "post_processor": None, "added_tokens": [], "model": model}))
    ours = _encoding(shape.pattern, [bytes([byte]) for byte in range(BYTES)] + [bytes(pair) for pair in pairs])
    alike = np.zeros(sys.maxunicode + 1, dtype=bool)  # what this Python does not know, it cannot know to be normalised
    for point, text, expected in zip(points, texts, theirs.encode_batch_fast(texts, add_special_tokens=False), strict=True):
        normal = shape.normalizer is None or unicodedata.is_normalized("NFC", text)
        alike[point] = not normal or expected.ids == ours.encode_ordinary(text)
    return UnicodeProof(alike)


def _around(character: str) -> str:
    """A character beside letters, marks and white space, where its class decides about the cuts."""
    return f"a{character}a1{character}.{character} {character}\n{character}'{character}"
