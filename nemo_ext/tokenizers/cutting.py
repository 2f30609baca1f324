"""Where a text may be cut so that the ids of its pieces, end to end, are the ids of the whole: what keeps memory bounded.

All cuts lie before a space that stands between two words. That no token reaches across one follows, for the kinds of tokenizers
known here, from their own definition; for others there is no cut.

* Byte-level BPE merges within matches of a pattern. None of PATTERNS can match a space that follows something else than white space,
  and their only look-ahead, `(?!\\S)`, matters within white space.
* BPE without such a pattern merges what the vocabulary allows: when no token has U+2581 (a space) after another character, no merge
  crosses the cut.
* WordPiece as in BERT cuts at white space first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_ext.tokenizers.folder import read_tokenizer_json
from nemo_ext.tokenizers.token_bytes import METASPACE

CUT = re.compile(r"(?<=[\w!-/:-~])(?= \w)")
CHUNK_CHARACTERS = 1 << 17
SPLIT_CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"

# Patterns with which published byte-level tokenizers cut text before merging.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # tokenizers, pre_tokenizers/byte_level.rs
QWEN2 = SPLIT_CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = SPLIT_CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = (GPT2, QWEN2, LLAMA3)


def byte_level_pattern(parsed: Mapping[str, Any]) -> str | None:
    """The one of PATTERNS by which a byte-level tokenizer.json cuts text, or None."""
    steps = parsed.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return None
    if len(steps) == 1:
        return GPT2 if last.get("use_regex", True) else None
    first = steps[0]
    wanted = {"type": "Split", "behavior": "Isolated", "invert": False}
    if len(steps) != 2 or last.get("use_regex", True) or {key: first.get(key) for key in wanted} != wanted:
        return None
    pattern = first.get("pattern", {}).get("Regex")
    return pattern if pattern in PATTERNS else None


def can_cut(path: Path) -> bool:
    """Whether a text may be cut at CUT for the tokenizer in a folder; False for those without a tokenizer.json."""
    return (path / "tokenizer.json").is_file() and can_cut_with(read_tokenizer_json(path))


def can_cut_with(parsed: Mapping[str, Any]) -> bool:
    """Whether a text may be cut at CUT for the tokenizer of this tokenizer.json."""
    added = [token for token in parsed.get("added_tokens") or [] if not token.get("special")]
    if any(token.get("lstrip") or token.get("rstrip") or token.get("single_word") for token in added):
        return False
    if any(CUT.search(token["content"] + "a") for token in added):  # a space at its end may have a word after it
        return False
    kind = parsed["model"].get("type") or ("BPE" if "merges" in parsed["model"] else None)
    if kind == "WordPiece":
        return _type(parsed, "pre_tokenizer") == "BertPreTokenizer" and _type(parsed, "normalizer") in (None, "BertNormalizer")
    if kind != "BPE" or parsed["model"].get("dropout"):
        return False
    if byte_level_pattern(parsed) is not None:
        return _type(parsed, "normalizer") in (None, "NFC")
    return _spaces_stand_first(parsed)


def _type(parsed: Mapping[str, Any], part: str) -> str | None:
    return (parsed.get(part) or {}).get("type")


def _spaces_stand_first(parsed: Mapping[str, Any]) -> bool:
    """Whether spaces become U+2581, nothing is put before the text, and no token has U+2581 after another character."""
    replaces = parsed.get("normalizer") == {"type": "Replace", "pattern": {"String": " "}, "content": METASPACE}
    before = parsed.get("pre_tokenizer")
    if not replaces or not (before is None or (before.get("type") == "Split" and before.get("pattern") == {"String": " "})):
        return False
    vocabulary = parsed["model"]["vocab"]
    return METASPACE in vocabulary and not any(METASPACE in token.lstrip(METASPACE) for token in vocabulary)


def chunks(pieces: Iterable[str], cut: re.Pattern[str], size: int) -> Iterator[str]:
    """A text given in pieces, in chunks of about `size` characters that end where `cut` does. Where it does not occur they are longer."""
    waiting: list[str] = []
    length, wanted = 0, size
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= wanted:
            text = "".join(waiting)
            end = _last_cut(text, cut)
            if end:
                yield text[:end]
            waiting, length = [text[end:]], length - end
            wanted = max(size, 2 * length)  # looking again at every piece would take quadratic time
    if rest := "".join(waiting):
        yield rest


def _last_cut(text: str, cut: re.Pattern[str]) -> int:
    """Where the last cut before the end of `text` ends, or 0."""
    window = 256
    while True:
        start = max(0, len(text) - window)
        found = [match.end() for match in cut.finditer(text, start) if match.end() < len(text)]
        if found or not start:
            return found[-1] if found else 0
        window *= 8
