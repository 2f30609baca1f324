"""Where tokenizers cut text before they merge, for pieces of text and in compiled code.

Known are the pattern of GPT-2, that of cl100k as Qwen and Llama 3 have it, the cut before every space (Metaspace, WordPiece), and none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.errors import ConfigError
from nemo_ext.tokenizers.characters import LETTER, MARK, NUMBER, OTHER, SPACE, class_at, run_of, width
from nemo_ext.tokenizers.compiled import compiled

NO_CUTS, BEFORE_SPACES, GPT2, CL100K = range(4)
BLANK, APOSTROPHE, LINE_FEED, CARRIAGE_RETURN = b" '\n\r"
UNLIMITED = 1 << 30
CASE_BIT = 0x20

# openai/gpt-2, src/encoder.py; tiktoken, tiktoken_ext/openai_public.py (cl100k_base), digits as Qwen2 and Llama 3 have them
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS = {r"\p{N}": 1, r"\p{N}{1,3}": 3}


class PretokenRule(NamedTuple):
    """Which of the patterns, and how many digits stay together at most."""

    pattern: int
    digits: int


def pretoken_rule(pre_tokenizer: Mapping[str, Any] | None) -> PretokenRule:
    """The rule of a tokenizer.json's `pre_tokenizer`. Raises ConfigError for one that is not known here."""
    steps: list[Any] = [pre_tokenizer or {"type": None}]
    if steps[0]["type"] == "Sequence":
        steps = steps[0]["pretokenizers"]
    kinds = [step["type"] for step in steps]
    patterns = [step["pattern"] for step in steps if step["type"] == "Split"]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return PretokenRule(GPT2, UNLIMITED)
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True) and "Regex" in patterns[0]:
        known = {CL100K_PATTERN.replace("DIGITS", digits): PretokenRule(CL100K, count) for digits, count in DIGITS.items()}
        known[GPT2_PATTERN] = PretokenRule(GPT2, UNLIMITED)
        if patterns[0]["Regex"] in known:
            return known[patterns[0]["Regex"]]
    if kinds == ["BertPreTokenizer"] or (kinds == ["Metaspace"] and steps[0].get("split", True)):
        return PretokenRule(BEFORE_SPACES, UNLIMITED)
    if kinds in ([None], ["Metaspace"]) or (kinds == ["Split"] and patterns == [{"String": " "}]):  # no spaces after Gemma's normalizer
        return PretokenRule(NO_CUTS, UNLIMITED)
    raise ConfigError(
        f"The tokenizer cuts text before merging in a way that is not known here (pre_tokenizer {patterns or kinds}), so pieces of text "
        "cannot be encoded as it would. Known are those of GPT-2, Qwen2, Llama 3, Gemma and BERT. Use stochastok, or another tokenizer."
    )


@compiled
def pretoken_end(text: NDArray[np.uint8], start: int, end: int, pattern: int, digits: int, classes: NDArray[np.uint8]) -> np.int64:
    """End of the pre-token that begins at `start`, when `text[..end]` is all there is."""
    if pattern == NO_CUTS:
        return np.int64(end)
    if pattern == BEFORE_SPACES:
        position = start + 1
        while position < end and text[position] != BLANK:
            position += 1
        return np.int64(position)
    if text[start] == APOSTROPHE:
        letters = contraction(text, start + 1, end, pattern == CL100K)
        if letters:
            return np.int64(start + 1 + letters)
    return gpt2_end(text, start, end, classes) if pattern == GPT2 else cl100k_end(text, start, end, digits, classes)


@compiled
def contraction(text: NDArray[np.uint8], start: int, end: int, any_case: bool) -> np.int64:
    """Letters of 's, 't, 'm, 'd, 're, 've or 'll after the apostrophe, else 0."""
    fold = CASE_BIT if any_case else 0
    first = text[start] | fold if start < end else 0
    if first == ord("s") or first == ord("t") or first == ord("m") or first == ord("d"):
        return np.int64(1)
    second = text[start + 1] | fold if start + 1 < end else 0
    if (first == ord("r") or first == ord("v")) and second == ord("e"):
        return np.int64(2)
    return np.int64(2 if first == ord("l") and second == ord("l") else 0)


@compiled
def gpt2_end(text: NDArray[np.uint8], start: int, end: int, classes: NDArray[np.uint8]) -> np.int64:
    """An optional space with letters, numbers or others; else white space."""
    first = start + 1 if text[start] == BLANK and start + 1 < end else start
    kind = class_at(text, first, end, classes)
    if kind == SPACE:
        return white_space_end(text, start, end, classes)
    return run_of(text, first, end, classes, OTHER if kind == MARK else kind, MARK if kind == OTHER else kind)


@compiled
def cl100k_end(text: NDArray[np.uint8], start: int, end: int, digits: int, classes: NDArray[np.uint8]) -> np.int64:
    """Letters with one character before them that is no number or line end; digits; others with line ends; else white space."""
    kind = class_at(text, start, end, classes)
    after = start + width(text, start, end)
    next_kind = class_at(text, after, end, classes) if after < end else np.uint8(SPACE)
    if kind == LETTER:
        return run_of(text, start, end, classes, LETTER, LETTER)
    if kind == NUMBER:
        count, position = 1, after
        while count < digits and position < end and class_at(text, position, end, classes) == NUMBER:
            count, position = count + 1, position + width(text, position, end)
        return np.int64(position)
    if next_kind == LETTER and text[start] != LINE_FEED and text[start] != CARRIAGE_RETURN:
        return run_of(text, after, end, classes, LETTER, LETTER)
    first = after if text[start] == BLANK and next_kind != SPACE else start
    position = run_of(text, first, end, classes, OTHER, MARK)
    if position > first:
        while position < end and (text[position] == LINE_FEED or text[position] == CARRIAGE_RETURN):
            position += 1
        return np.int64(position)
    return line_end(text, start, end, classes)


@compiled
def line_end(text: NDArray[np.uint8], start: int, end: int, classes: NDArray[np.uint8]) -> np.int64:
    """White space up to its last line end, if it has one."""
    position = run_of(text, start, end, classes, SPACE, SPACE)
    while position > start and text[position - 1] != LINE_FEED and text[position - 1] != CARRIAGE_RETURN:
        position -= 1
    return position if position > start else white_space_end(text, start, end, classes)


@compiled
def white_space_end(text: NDArray[np.uint8], start: int, end: int, classes: NDArray[np.uint8]) -> np.int64:
    """White space without its last character, which goes with what follows; all of it when it is one character or nothing follows."""
    position = run_of(text, start, end, classes, SPACE, SPACE)
    last = position - 1
    while (text[last] & 0xC0) == 0x80:
        last -= 1
    return np.int64(position if position == end or last == start else last)
