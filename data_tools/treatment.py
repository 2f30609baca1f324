"""What a tokenizer plugin did to a dataset: its stored tokens against those that the tokenizer alone gives for the same bytes.

Nothing is taken from the plugin's word except its own counts, which stand beside what is measured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.affix_cuts import WORD, AffixCuts
from data_tools.cuts import CutCounts, batches, compare_cuts, spelled, spread, text_lengths, token_ends, unit_of
from data_tools.indexed import IndexedReader
from nemo_ext.common.dataset import DatasetInfo, SplitInfo
from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, load
from nemo_ext.tokenizers.array_cache import cached
from nemo_ext.tokenizers.split_table import SplitTable, build_split_table

SAMPLE_DOCUMENTS = 2000
LONGEST_TOKENS = 1 << 21  # encoding some 8 MB of text again takes about 1 GB of memory
NOT_UTF8 = "not-utf8"
TOO_LONG = "too-long-to-encode-again"
SPELLS_OTHERWISE = "does-not-spell-the-same-when-encoded-again"


class Pair(NamedTuple):
    """Documents as the tokenizer alone cuts them, as they are stored, and their texts. Both series spell the same bytes."""

    before: RaggedBatch
    after: RaggedBatch
    texts: list[str]


class Retokenizer:
    """Stored documents to Pairs; `left_out` counts, by reason, those that have none."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.left_out: Counter[str] = Counter()
        self._tokenizer = tokenizer
        probe = spelled(tokenizer.encode_batch(["a"]).ids.astype(np.int64), tokenizer)
        self._adds_space = probe[:1].tobytes() == b" "  # so do Llama 2, and in its way WordPiece

    def __call__(self, stored: RaggedBatch) -> tuple[NDArray[np.bool_], Pair]:
        """Which documents [documents] have a pair, and the pair."""
        spellings = self._spellings(stored)
        texts = [self._text(spelling) for spelling in spellings]
        chosen = np.array([text is not None for text in texts], dtype=bool)
        again = self._tokenizer.encode_batch([text for text in texts if text is not None])
        before = RaggedBatch(again.ids.astype(np.int64), again.offsets)
        wanted = [spelling for spelling, text in zip(spellings, texts, strict=True) if text is not None]
        same = np.array([one == other for one, other in zip(self._spellings(before), wanted, strict=True)], dtype=bool)
        self.left_out.update({SPELLS_OTHERWISE: int((~same).sum())} if not same.all() else {})
        chosen[chosen] = same
        kept = [text for text, is_kept in zip(texts, chosen.tolist(), strict=True) if text is not None and is_kept]
        return chosen, Pair(before.select(same), stored.select(chosen), kept)

    def _spellings(self, batch: RaggedBatch) -> list[bytes]:
        flat = spelled(batch.ids, self._tokenizer).tobytes()
        ends = np.cumsum(text_lengths(batch, self._tokenizer)).tolist()
        return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _text(self, spelling: bytes) -> str | None:
        try:
            return spelling.removeprefix(b" " if self._adds_space else b"").decode("utf-8")
        except UnicodeDecodeError:
            self.left_out[NOT_UTF8] += 1
            return None

    @property
    def added_bytes(self) -> int:
        """Bytes that every document spells before its text begins."""
        return int(self._adds_space)


def describe_treatment(
    info: DatasetInfo,
    affixes: Mapping[str, Sequence[str]] | None = None,
    most_documents: int | None = SAMPLE_DOCUMENTS,
    on_documents: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure what the plugin of a dataset did, on `most_documents` of every split, spread evenly, or on all of them (None).

    `affixes` by kind (see AffixCuts); without them their cuts are not counted. Returns JSON.
    Where sentences were encoded one by one, they stand for documents in all of this.
    Raises DataError when no document could be compared.
    """
    tokenizer = load(info.tokenizer_dir)
    measure, retokenizer = _Measure(tokenizer, affixes), Retokenizer(tokenizer)
    numbers = {name: _short_enough(split, most_documents, retokenizer.left_out) for name, split in info.splits.items()}
    wanted, done = sum(map(len, numbers.values())), 0
    for name, chosen in numbers.items():
        for batch_numbers, stored in batches(info, tokenizer, name, chosen):
            measure.add(retokenizer(stored)[1], retokenizer.added_bytes)
            done += len(batch_numbers)
            on_documents(done, wanted)
    if not measure.counts.documents:
        reasons = ", ".join(f"{count} {reason}" for reason, count in retokenizer.left_out.items())
        raise DataError(f"No document of {info.path} could be encoded again to compare it with its stored tokens ({reasons}).")
    return {
        "plugin": info.manifest["plugin"],
        "counted_by_plugin": info.manifest.get("plugin_counts"),
        "compared": {
            "unit": unit_of(info),
            "count": measure.counts.documents,
            "of": sum(len(IndexedReader(split.prefix)) for split in info.splits.values()),
            "left_out": dict(sorted(retokenizer.left_out.items())),
        },
        **measure.summary(),
    }


def _short_enough(split: SplitInfo, most_documents: int | None, left_out: Counter[str]) -> NDArray[np.int64]:
    lengths = IndexedReader(split.prefix).lengths
    numbers = spread(len(lengths), most_documents or len(lengths))
    is_long = lengths[numbers] > LONGEST_TOKENS
    left_out.update({TOO_LONG: int(is_long.sum())} if is_long.any() else {})
    return numbers[~is_long]


class _Measure:
    """Everything that is counted over pairs."""

    def __init__(self, tokenizer: TextTokenizer, affixes: Mapping[str, Sequence[str]] | None) -> None:
        self.counts = CutCounts()
        self._tokenizer = tokenizer
        self._affixes = AffixCuts(affixes) if affixes is not None else None
        self._splittable = _splittable(tokenizer)
        self._unsplittable = self._words = self._bytes = 0

    def add(self, pair: Pair, added_bytes: int) -> None:
        self.counts += compare_cuts(pair.before, pair.after, self._tokenizer)
        self._unsplittable += int((~self._splittable[pair.before.ids]).sum())
        self._words += sum(1 for text in pair.texts for _ in WORD.finditer(text))
        lengths = text_lengths(pair.before, self._tokenizer)
        self._bytes += int(lengths.sum()) - added_bytes * len(pair.texts)
        if self._affixes is not None:
            self._add_affixes(self._affixes, pair, lengths, added_bytes)

    def _add_affixes(self, affixes: AffixCuts, pair: Pair, lengths: NDArray[np.int64], added_bytes: int) -> None:
        ends = [token_ends(batch.ids, self._tokenizer) for batch in (pair.before, pair.after)]
        first_bytes = (np.cumsum(lengths) - lengths + added_bytes).tolist()
        for document, (text, first_byte) in enumerate(zip(pair.texts, first_bytes, strict=True)):
            own = [part[batch.offsets[document] : batch.offsets[document + 1]] for part, batch in zip(ends, pair[:2], strict=True)]
            affixes.add(text, first_byte, *own)

    def summary(self) -> dict[str, Any]:
        """Shares and ratios, as JSON."""
        counts = self.counts

        def before_and_after(numerators: tuple[int, int], denominators: tuple[int, int]) -> dict[str, float | None]:
            ratios = [round(top / bottom, 4) if bottom else None for top, bottom in zip(numerators, denominators, strict=True)]
            return {"before": ratios[0], "after": ratios[1]}

        tokens = (counts.tokens_before, counts.tokens_after)
        return {
            "tokens": {"before": tokens[0], "after": tokens[1]},
            **counts.shares(),
            "unsplittable": round(self._unsplittable / tokens[0], 6) if tokens[0] else None,
            "tokens_per_word": before_and_after(tokens, (self._words, self._words)),
            "bytes_per_token": before_and_after((self._bytes, self._bytes), tokens),
            "affixes": self._affixes.summary() if self._affixes is not None else None,
        }


def _splittable(tokenizer: TextTokenizer) -> NDArray[np.bool_]:
    """Whether each token of the vocabulary is two other tokens, one after the other, [vocab]."""
    table = cached(SplitTable, tokenizer.fingerprint, lambda: build_split_table(tokenizer.spelling))
    return np.diff(table.offsets) > 0


def side_by_side(info: DatasetInfo, split: str, count: int, most_tokens: int) -> Iterator[dict[str, Any]]:
    """Documents spread over a split: the stored tokens of their beginnings, and those of the tokenizer alone for the same bytes.

    Yields document number, number of tokens and the ids `after` and `before`; `before` is None for a document left out.
    """
    tokenizer = load(info.tokenizer_dir)
    retokenizer = Retokenizer(tokenizer)
    for number in spread(len(IndexedReader(info.splits[split].prefix)), count):
        _, stored = next(batches(info, tokenizer, split, np.array([number])))
        after, before = stored.ids[:most_tokens], None
        if len(stored.ids) <= LONGEST_TOKENS:
            chosen, pair = retokenizer(stored)
            if chosen.all():
                end = token_ends(after, tokenizer)[-1] if len(after) else 0
                before = pair.before.ids[: np.searchsorted(token_ends(pair.before.ids, tokenizer), end) + 1]
        yield {"document": int(number), "tokens": len(stored.ids), "after": after, "before": before}
