"""Patok's law written out in Python, token by token, against which the compiled one is held. See `nemo_ext.tokenizers.patok`."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from nemo_ext.tokenizers.affix_lists import read_affixes

if TYPE_CHECKING:
    from nemo_ext.tokenizers import TextTokenizer


def positional_hits(text: str) -> list[tuple[int, int, int]]:
    """(core, start, end) of affixes, by regular expressions on ASCII text: the start is the core or the space before it."""
    found = []
    for word in re.finditer(r"[A-Za-z]+", text):
        start, end = word.span()
        spaced = start - 1 if start and text[start - 1] == " " else start
        for kind, affix in read_affixes("filipino", None):
            if kind == 0 and word[0].lower().startswith(affix) and len(word[0]) - len(affix) >= 2:
                found.append((start, spaced, start + len(affix)))
            consonant = re.match(r"ng(?=.)|[b-df-hj-np-tv-z]", word[0].lower())
            if kind == 1 and consonant and word[0].lower().startswith(affix, consonant.end()):
                place = start + consonant.end()
                if place + len(affix) < end:
                    found.append((place, place, place + len(affix)))
            if kind == 2 and word[0].lower().endswith(affix) and len(word[0]) - len(affix) >= 2:
                found.append((end - len(affix), end - len(affix), end))
    return found


class WrittenLaw:
    """Patok as its docstring says, token by token in Python, for one ASCII document."""

    def __init__(self, tokenizer: TextTokenizer, text: str, source: random.Random) -> None:
        self.text, self.source, self.hits = text, source, positional_hits(text)
        self.lengths = [len(spelling) for spelling in tokenizer.token_bytes]
        self.encode = cache(lambda piece: tokenizer.encode_batch([piece]).ids.tolist())
        self.counts: Counter[str] = Counter()

    def contracted(self, ids: list[int], windows: int) -> tuple[int, ...]:
        """The ids after so many windows were cut anew."""
        ids = list(ids)
        for _ in range(windows):
            size = self.source.choices([2, 3, 4], [0.35, 0.35, 0.3])[0]
            ends = np.cumsum([0, *(self.lengths[token] for token in ids)]).tolist()
            first = self.window(ends, len(ids), size) if len(ids) >= size else 0
            size = min(size, len(ids))
            ids[first : first + size] = list(chain(*map(self.encode, self.pieces(ends[first], ends[first + size]))))
        return tuple(ids)

    def window(self, ends: list[int], count: int, size: int) -> int:
        """The first of `size` tokens that are not refused. `counts["draws_refused"]` goes up."""
        while True:
            first = self.source.randrange(count - size + 1)
            start, end = ends[first], ends[first + size]
            spans = list(zip(ends[first : first + size], ends[first + 1 : first + size + 1], strict=True))
            cores = Counter(core for core, _, last in self.hits if start <= core and last <= end)
            refusal = 0.75 if max(cores.values(), default=0) > 1 else 0.95
            holds = any((span[0] in (core, begin)) and span[1] == last for span in spans for core, begin, last in self.hits)
            if not holds or self.source.random() >= refusal:
                return first
            self.counts["draws_refused"] += 1

    def pieces(self, start: int, end: int) -> Iterator[str]:
        """The text from `start` to `end` as it is encoded: around an affix, and around the first reduplication of each part."""
        hits = [hit for hit in self.hits if start <= hit[0] and hit[2] <= end]
        limits = [start, end]
        if hits and self.source.random() <= 0.95:
            _, begin, last = self.source.choice(hits)
            limits = [start, max(begin, start), last, end]
        for begin, last in pairwise(limits):
            piece = self.text[begin:last]
            pair = re.search(r"(?i) ?([b-df-hj-np-tv-z][aeiou])(?=\1)", piece)
            parts = [piece[: pair.start()], pair[0], piece[pair.end() :]] if pair else [piece]
            yield from filter(None, parts)
