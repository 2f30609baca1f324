"""Text to measure on: sentences of Python's documentation and of made-up Filipino-like words, shuffled, in any amount.

The same seed gives the same text. Made-up words follow Filipino syllables and affixes, and Zipf's law in their frequency, so that
a tokenizer meets as many different words as in real text.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from data_tools.python_docs import python_topics

ONSETS = ("b", "k", "d", "g", "h", "l", "m", "n", "ng", "p", "r", "s", "t", "w", "y", "")
VOWELS = "aeiou"
CODAS = ("", "", "", "n", "s", "t", "k", "y", "ng")
PREFIXES = ("", "", "", "mag", "nag", "pag", "ma", "na", "ka", "i", "pa", "maka", "paki")
SUFFIXES = ("", "", "", "an", "in", "han", "hin")
LEXICON_WORDS = 30_000
SENTENCES = 20_000  # made-up ones to draw from
FILIPINO_SHARE = 0.5
DIFFERENT_BYTES = 64 << 20  # a larger corpus repeats itself


def made_up_words(generator: np.random.Generator, count: int) -> list[str]:
    """Different words of one to three syllables with affixes, a tenth of the longer ones with an infix."""
    words: dict[str, None] = {}
    while len(words) < count:
        parts = [ONSETS, tuple(VOWELS), CODAS]
        syllables = ["".join(_choose(generator, part) for part in parts) for _ in range(generator.integers(1, 4))]
        root = "".join(syllables)
        if len(syllables) > 1 and generator.random() < 0.1 and root[0] not in VOWELS:
            root = root[0] + _choose(generator, ("um", "in")) + root[1:]
        words[_choose(generator, PREFIXES) + root + _choose(generator, SUFFIXES)] = None
    return list(words)


def _choose(generator: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[generator.integers(len(options))]


@cache
def sentences(seed: int) -> tuple[list[str], list[str]]:
    """Real English sentences, and made-up Filipino ones."""
    generator = np.random.default_rng(seed)
    english = [part for _, text in python_topics() for part in re.split(r"(?<=[.:]) +|\n\n", text) if part.strip()]
    words = np.array(made_up_words(generator, LEXICON_WORDS), dtype=object)
    frequency = 1 / np.arange(1, len(words) + 1)
    lengths = generator.integers(5, 16, SENTENCES)
    drawn = iter(generator.choice(words, int(lengths.sum()), p=frequency / frequency.sum()).tolist())
    filipino = [" ".join(next(drawn) for _ in range(length)).capitalize() + "." for length in lengths.tolist()]
    return english, filipino


def documents(document_bytes: int, total_bytes: int, seed: int = 1) -> Iterator[str]:
    """Documents of about `document_bytes` each, `total_bytes` together (at least one)."""
    english, filipino = sentences(seed)
    generator = np.random.default_rng([seed, document_bytes])
    written = 0
    while written < total_bytes:
        parts: list[str] = []
        size = 0
        while size < document_bytes:
            source = filipino if generator.random() < FILIPINO_SHARE else english
            parts.append(source[generator.integers(len(source))])
            size += len(parts[-1]) + 1
        text = " ".join(parts)[:document_bytes]
        written += len(text)
        yield text


def write_corpus(path: Path, document_bytes: int, total_bytes: int, long_line_bytes: int = 0) -> Path:
    """JSON lines of `documents`, and in their middle, if asked for, one line of `long_line_bytes`."""
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents(document_bytes, min(total_bytes, DIFFERENT_BYTES))]
    with open(path, "w", encoding="utf-8") as handle:
        for line in itertools.islice(itertools.cycle(lines), max(1, total_bytes // document_bytes)):
            handle.write(line)
            if handle.tell() > total_bytes // 2 and long_line_bytes:
                passage = next(documents(1 << 20, 1))
                handle.write(json.dumps({"text": passage * (long_line_bytes // len(passage))}, ensure_ascii=False) + "\n")
                long_line_bytes = 0
    return path
