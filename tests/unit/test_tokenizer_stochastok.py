"""StochasTok follows its published law, keeps the text, and depends on seed and document id alone; its split table is complete."""

from __future__ import annotations

import math
import random
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, plugins
from nemo_ext.tokenizers.random_stream import below, draw, restart, unit
from nemo_ext.tokenizers.spelling import make_spelling
from nemo_ext.tokenizers.split_table import SplitTable, build_split_table
from tests.support.small_text import TEXTS
from tests.support.tokenizer_kinds import KINDS, documents_of, ragged, spelled, total_variation

SEEDS = st.integers(0, 2**70)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return KINDS[request.param](tmp_path_factory.mktemp("tokenizer") / request.param)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return KINDS["byte-level"](tmp_path_factory.mktemp("tokenizer") / "byte-level")


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def stochastok(tokenizer: TextTokenizer, expand_prop: float) -> plugins.Plugin:
    return plugins.create("stochastok", {"expand_prop": expand_prop}, tokenizer)


def expand(tokenizer: TextTokenizer, expand_prop: float, batch: RaggedBatch, numbers: list[int], seed: int = 1) -> RaggedBatch:
    plugin = stochastok(tokenizer, expand_prop)
    return plugins.apply(plugin, batch, np.array(numbers, dtype=np.uint64), seed, tokenizer.vocab_size)


@given(data=st.data(), expand_prop=st.sampled_from([0.0, 0.1, 0.5, 3.0]), seed=SEEDS)
def test_any_ids_keep_their_text_their_fixed_tokens_and_the_vocabulary(
    tokenizer: TextTokenizer, data: st.DataObject, expand_prop: float, seed: int
) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12), max_size=5))
    batch = ragged(documents)
    result = documents_of(expand(tokenizer, expand_prop, batch, list(range(len(documents))), seed))
    ordinary = tokenizer.spelling.ordinary
    for before, after in zip(documents, result, strict=True):
        assert spelled(tokenizer, before) == spelled(tokenizer, after)
        assert [token for token in before if not ordinary[token]] == [token for token in after if not ordinary[token]]
        assert len(before) <= len(after) <= len(before) + math.floor(expand_prop * len(before))
    assert documents_of(batch) == documents


@given(order=st.permutations(range(8)), cut=st.integers(0, 8), seed=SEEDS)
def test_a_document_is_expanded_alike_in_any_batch_and_order(tokenizer: TextTokenizer, order: list[int], cut: int, seed: int) -> None:
    documents = documents_of(tokenizer.encode_batch(TEXTS[:8]))
    whole = documents_of(expand(tokenizer, 0.5, ragged(documents), list(range(8)), seed))
    parts = [order[:cut], order[cut:]]
    found = [documents_of(expand(tokenizer, 0.5, ragged([documents[number] for number in part]), part, seed)) for part in parts]
    assert list(chain(*found)) == [whole[number] for number in order]


def test_seeds_and_documents_have_random_choices_of_their_own(byte_level: TextTokenizer) -> None:
    batch = byte_level.encode_batch([TEXTS[5]] * 3)
    one, two = expand(byte_level, 0.5, batch, [1, 2, 1], seed=1), expand(byte_level, 0.5, batch, [1, 2, 1], seed=2)
    assert documents_of(one)[0] == documents_of(one)[2] != documents_of(one)[1]
    assert documents_of(one)[0] != documents_of(two)[0]


def published_law(ids: list[int], attempts: int, splits: dict[int, list[tuple[int, int]]], source: random.Random) -> tuple[int, ...]:
    ids = list(ids)
    for _ in range(attempts):
        position = source.randrange(len(ids))
        if ids[position] in splits:
            ids[position : position + 1] = source.choice(splits[ids[position]])
    return tuple(ids)


def test_results_are_distributed_as_the_published_law_says(byte_level: TextTokenizer) -> None:
    ids, samples = byte_level.encode_batch([" tumulaman, ang laro"]).ids.tolist(), 20_000
    assert len(ids) >= 6
    table = build_split_table(byte_level.spelling)
    splits = {
        token: list(zip(table.left[start:end].tolist(), table.right[start:end].tolist(), strict=True))
        for token, (start, end) in enumerate(zip(table.offsets, table.offsets[1:], strict=False))
        if end > start
    }
    source = random.Random(1)
    law, again = (Counter(published_law(ids, len(ids), splits, source) for _ in range(samples)) for _ in range(2))
    ours = Counter(map(tuple, documents_of(expand(byte_level, 1.0, ragged([ids] * samples), list(range(samples))))))
    assert len(law) > 50
    assert total_variation(ours, law) < 1.1 * total_variation(law, again)


def test_attempts_are_counted_with_those_that_were_spent(byte_level: TextTokenizer) -> None:
    plugin = plugins.create("stochastok", {"expand_prop": 0.5}, byte_level)
    batch = byte_level.encode_batch(TEXTS)
    result = plugins.apply(plugin, batch, np.arange(len(TEXTS), dtype=np.uint64), 1, byte_level.vocab_size)
    counts = plugin.counts
    assert counts["attempts"] == sum(math.floor(0.5 * length) for length in batch.lengths)
    assert counts["attempts"] == counts["splits"] + counts["unsplittable"] and counts["unsplittable"] > 0
    assert counts["tokens_after"] - counts["tokens_before"] == counts["splits"] == len(result.ids) - len(batch.ids)
    assert counts["documents"] == len(TEXTS) >= counts["documents_changed"] > 0


class Letters:
    """As much of a tokenizer as the plugin needs: every part of "abcdefgh" is a token."""

    spelling = make_spelling([b"abcdefgh"[start:end] for start in range(8) for end in range(start + 1, 9)], np.ones(36, dtype=bool))
    fingerprint = "letters"
    vocab_size = 36


def test_a_seed_gives_the_same_ids_in_every_version() -> None:
    result = expand(Letters(), 0.5, ragged([[7, 35, 7, 7], [7] * 6]), [7, 8], seed=1234)  # type: ignore[arg-type]
    assert documents_of(result) == [[7, 35, 5, 33, 35, 7], [5, 34, 7, 7, 7, 0, 10, 29, 7]]


def test_the_random_stream_is_splitmix64() -> None:
    state = np.array([1234567], dtype=np.uint64)
    assert [draw(state) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_split_table_holds_every_cut_into_two_ordinary_tokens(tokenizer: TextTokenizer) -> None:
    spelling = tokenizer.spelling
    ordinary = {spelled(tokenizer, [token]): token for token in reversed(range(tokenizer.vocab_size)) if spelling.ordinary[token]}
    table = build_split_table(spelling)
    assert len(table.left) > 50
    for token in range(tokenizer.vocab_size):
        text = spelled(tokenizer, [token]) if spelling.ordinary[token] else b""
        cuts = [(ordinary.get(text[:cut]), ordinary.get(text[cut:])) for cut in range(1, len(text))]
        start, end = table.offsets[token : token + 2]
        found = list(zip(table.left[start:end].tolist(), table.right[start:end].tolist(), strict=True))
        assert found == [pair for pair in cuts if None not in pair]


def test_tokens_that_are_not_text_are_neither_split_nor_made(tokenizer: TextTokenizer) -> None:
    texts = [tokenizer.token_text(token) for token in np.flatnonzero(~tokenizer.spelling.ordinary)]
    assert {tokenizer.token_text(tokenizer.eod_id)} <= set(texts)
    byte_tokens = {f"<0x{byte:02X}>" for byte in range(256)}
    assert set(texts) - byte_tokens <= {
        "<|endoftext|>",
        "<unk>",
        "<eos>",
        "[UNK]",
        "[SEP]",
        "[CLS]",
        "[unused1]",
        "<s>",
        "</s>",
        "<number>",
    }


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "fields"])
def test_a_damaged_table_in_the_cache_is_built_again(
    byte_level: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plugins.create("stochastok", {"expand_prop": 0.5}, byte_level)
    (file,) = (tmp_path / "sibol").iterdir()
    whole = file.read_bytes()
    if damage == "fields":
        np.savez(file, offsets=np.zeros(1))
    else:
        flipped = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
        file.write_bytes({"cut": whole[:-200], "flip": flipped, "empty": b""}[damage])
    plugin = plugins.create("stochastok", {"expand_prop": 0.5}, byte_level)
    assert all(map(np.array_equal, plugin.transform._table, build_split_table(byte_level.spelling)))
    with np.load(file) as saved:
        assert set(saved) == set(SplitTable._fields)


def test_a_cache_folder_that_cannot_be_written_costs_nothing_but_time(
    byte_level: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    plugin = plugins.create("stochastok", {"expand_prop": 0.5}, byte_level)
    assert len(plugin.transform._table.left) > 50


@given(seed=st.integers(0, 2**64 - 1), document=st.integers(0, 2**64 - 1), limit=st.integers(1, 2**32 - 1))
def test_drawn_integers_stay_below_their_limit(seed: int, document: int, limit: int) -> None:
    state = np.zeros(1, dtype=np.uint64)
    restart(state, np.uint64(seed), np.uint64(document))
    assert all(0 <= below(state, limit) < limit for _ in range(8)) and 0 <= unit(state) < 1


def test_drawn_integers_are_uniform() -> None:
    state = np.zeros(1, dtype=np.uint64)
    restart(state, np.uint64(1), np.uint64(2))
    counts = np.bincount([below(state, 6) for _ in range(60_000)], minlength=6)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 20.5  # chi-squared with 5 degrees of freedom, 99.9 %
