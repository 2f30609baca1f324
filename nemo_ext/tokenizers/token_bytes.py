"""Which bytes of text each token stands for, so that ids turn back into exactly the bytes they came from.

Joining bytes is exact where decoding token by token is not: a token may end in the middle of a character. Byte-level
alphabets (GPT-2, Qwen) and SentencePiece-style vocabularies (Gemma, Llama: U+2581 for a space, <0xE2> for a byte) are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_ext.common.errors import DataError

METASPACE = "\u2581"
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>\Z")


def byte_alphabet() -> dict[str, int]:
    """Character to byte of the byte-level alphabet (Radford et al. 2019, GPT-2 `bytes_to_unicode`): printable bytes stand for
    themselves, the other 68 are numbered from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + position): byte for position, byte in enumerate(others)}


def decoder_steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The decoder of a tokenizer.json as a flat series of steps."""
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for step in decoder["decoders"]:
            yield from decoder_steps(step)
    else:
        yield decoder


def strips_leading_space(decoder: Mapping[str, Any] | None) -> bool:
    """Whether the tokenizer puts a space before every text and its decoder takes it away again (Llama 2)."""
    for step in decoder_steps(decoder):
        if step["type"] == "Strip" and step["content"] == " " and step["start"] > 0:
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return True
    return False


def bytes_of_tokens(decoder: Mapping[str, Any] | None, vocabulary: Mapping[str, int], added: Mapping[int, str]) -> list[bytes]:
    """Bytes of every token id; ids without a token are empty. `added` maps ids of added tokens to their literal text.

    Raises DataError when the decoder is of a kind whose tokens do not spell the text (WordPiece drops spaces).
    """
    kinds = {step["type"] for step in decoder_steps(decoder)}
    if "ByteLevel" in kinds:
        table = _byte_level(vocabulary)
    elif kinds & {"Metaspace", "ByteFallback", "Fuse"} and "WordPiece" not in kinds:
        table = _sentencepiece(vocabulary, "ByteFallback" in kinds)
    else:
        raise DataError(
            f"Tokens of this tokenizer do not spell the text exactly (decoder: {', '.join(sorted(kinds)) or 'none'}). "
            "Expected a byte-level or SentencePiece-style tokenizer; use one where exact bytes are needed."
        )
    for token_id, text in added.items():
        table[token_id] = text.encode("utf-8")
    return table


def _empty_table(vocabulary: Mapping[str, int]) -> list[bytes]:
    return [b""] * (max(vocabulary.values()) + 1)


def _byte_level(vocabulary: Mapping[str, int]) -> list[bytes]:
    table, alphabet = _empty_table(vocabulary), byte_alphabet()
    for token, token_id in vocabulary.items():
        spelled = all(character in alphabet for character in token)
        table[token_id] = bytes(alphabet[character] for character in token) if spelled else token.encode("utf-8")
    return table


def _sentencepiece(vocabulary: Mapping[str, int], byte_fallback: bool) -> list[bytes]:
    table = _empty_table(vocabulary)
    for token, token_id in vocabulary.items():
        match = BYTE_TOKEN.match(token) if byte_fallback else None
        table[token_id] = bytes([int(match[1], 16)]) if match else token.replace(METASPACE, " ").encode("utf-8")
    return table
