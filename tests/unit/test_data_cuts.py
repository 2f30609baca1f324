"""Cuts are compared by the bytes that tokens cover; affixes are found by their place in a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.affix_cuts import AffixCuts
from data_tools.cuts import CutCounts, compare_cuts, spelled, spread, text_lengths
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, plugins
from tests.support.small_text import TEXTS
from tests.support.tokenizer_kinds import KINDS

DOCUMENTS = st.lists(
    st.lists(st.sampled_from(TEXTS[0].split(" ") + [" ", "\u65e5\u672c", "\U0001f331"]), max_size=12).map(" ".join), max_size=5
)
AFFIXES = {"prefix": ["mag", "ma", "na"], "infix": ["um", "in"], "suffix": ["an", "han"]}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return KINDS[request.param](tmp_path_factory.mktemp("tokenizer") / request.param)


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def encode(tokenizer: TextTokenizer, texts: list[str]) -> RaggedBatch:
    batch = tokenizer.encode_batch(texts)
    return RaggedBatch(batch.ids.astype(np.int64), batch.offsets)


def treat(tokenizer: TextTokenizer, batch: RaggedBatch, share: float) -> RaggedBatch:
    plugin = plugins.create("stochastok", {"expand_prop": share}, tokenizer)
    numbers = np.arange(batch.documents, dtype=np.uint64)
    return plugins.apply(plugin, batch, numbers, 1, tokenizer.vocab_size)


def spans(batch: RaggedBatch, tokenizer: TextTokenizer) -> list[set[tuple[int, int, int]]]:
    found = []
    for document in range(batch.documents):
        here, tokens = 0, set()
        for token in batch.document(document).tolist():
            size = len(spelled(np.array([token]), tokenizer))
            tokens.add((here, here + size, token))
            here += size
        found.append(tokens)
    return found


@given(DOCUMENTS, st.sampled_from([0.0, 0.3, 2.0]))
def test_counts_are_those_of_spans_compared_one_by_one(tokenizer: TextTokenizer, texts: list[str], share: float) -> None:
    before = encode(tokenizer, texts)
    after = treat(tokenizer, before, share)
    one, other = spans(before, tokenizer), spans(after, tokenizer)
    counts = compare_cuts(before, after, tokenizer)
    assert counts == CutCounts(
        documents=len(texts),
        documents_changed=sum(left != right for left, right in zip(one, other, strict=True)),
        tokens_before=len(before.ids),
        tokens_after=len(after.ids),
        tokens_same=sum(len(left & right) for left, right in zip(one, other, strict=True)),
        boundaries_same=sum(
            len({end for _, end, _ in left} & {end for _, end, _ in right}) for left, right in zip(one, other, strict=True)
        ),
    )
    parts = [before.select(np.arange(len(texts)) == number) for number in range(len(texts))]
    parts_after = [after.select(np.arange(len(texts)) == number) for number in range(len(texts))]
    total = sum((compare_cuts(*pair, tokenizer) for pair in zip(parts, parts_after, strict=True)), CutCounts())
    assert total == counts


@given(DOCUMENTS)
def test_spelled_bytes_are_the_text_of_tokenizers_that_keep_spaces(tokenizer: TextTokenizer, texts: list[str]) -> None:
    batch = encode(tokenizer, texts)
    flat = spelled(batch.ids, tokenizer).tobytes()
    assert len(flat) == text_lengths(batch, tokenizer).sum()
    if tokenizer.path.name in ("byte-level", "metaspace"):  # the others join or add spaces
        assert flat == "".join(texts).encode()


@given(st.integers(1, 50), st.integers(1, 60))
def test_a_sample_is_spread_from_the_first_to_the_last(count: int, wanted: int) -> None:
    numbers = spread(count, wanted)
    assert len(numbers) == min(count, wanted) and numbers[0] == 0
    assert len(numbers) == 1 or (numbers[-1] == count - 1 and np.ptp(np.diff(numbers)) <= 1)


def named(text: str) -> list[tuple[int, str]]:
    cuts = AffixCuts(AFFIXES)
    found = cuts.occurrences(text)
    encoded = text.encode()
    spelling = [encoded[start:end].decode().lower() for start, end in zip(found.start.tolist(), found.end.tolist(), strict=True)]
    kinds = [cuts._names[number][0] for number in found.affix.tolist()]
    assert [cuts._names[number][1] for number in found.affix.tolist()] == spelling
    return list(zip(kinds, spelling, strict=True))  # type: ignore[arg-type]


def test_affixes_count_at_their_place_only_and_the_longest_of_a_kind() -> None:
    assert named("maganda") == [("prefix", "mag")]
    assert named("Na\u00efve mag-aral nahan") == [("prefix", "na"), ("prefix", "mag"), ("prefix", "na"), ("suffix", "han")]
    assert named("kumain sumulat umulan ngumiti") == [("infix", "um"), ("infix", "um"), ("suffix", "an"), ("infix", "um")]
    assert named("damag inin ma- man mag kum") == []


@given(st.text(alphabet="magn\u00efu \u65e5-", max_size=40))
def test_every_affix_has_a_stem_and_touches_the_edge_of_its_word(text: str) -> None:
    words = [(word.start(), word.end(), word[1]) for word in re.finditer(r"[^\W\d_]+(?=(-?)\w?)", text)]
    characters = {len(text[:position].encode()): position for position in range(len(text) + 1)}
    found = AffixCuts(AFFIXES).occurrences(text)
    for start, end in zip(found.start.tolist(), found.end.tolist(), strict=True):
        start, end = characters[start], characters[end]
        first, last, hyphen = next(word for word in words if word[0] <= start and end <= word[1])
        assert start in (first, first + 1, first + 2) or end == last
        assert (last - first) - (end - start) >= 2 or (hyphen and start == first)


def test_boundaries_at_and_within_affixes_are_counted_before_and_after() -> None:
    cuts = AffixCuts(AFFIXES)
    #        m a g l a r o   s u m a m a   t a w a h a n
    cuts.add("maglaro sumama tawahan", 10, np.array([13, 17, 20, 32]), np.array([12, 17, 19, 21, 28, 29, 32]))
    kinds: dict[str, Any] = cuts.summary()["kinds"]
    assert kinds["prefix"] == {
        "occurrences": 1,
        "boundary_at_edge": {"before": 1.0, "after": 0.0},
        "cut_within": {"before": 0.0, "after": 1.0},
    }
    assert kinds["infix"] == {
        "occurrences": 1,
        "boundary_at_edge": {"before": 0.0, "after": 1.0},
        "cut_within": {"before": 1.0, "after": 0.0},
    }
    assert kinds["suffix"] == {
        "occurrences": 1,
        "boundary_at_edge": {"before": 0.0, "after": 1.0},
        "cut_within": {"before": 0.0, "after": 0.0},
    }
    frequent = cuts.summary()["most_frequent"]
    assert [(entry["kind"], entry["affix"]) for entry in frequent] == [("prefix", "mag"), ("infix", "um"), ("suffix", "han")]
