"""Very long documents reach plugins in blocks: nothing is lost, no word is in two blocks, and shorter documents do not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, plugins
from nemo_ext.tokenizers.blocks import block_key, blocks_of
from tests.support.small_text import TEXTS
from tests.support.tokenizer_kinds import KINDS, documents_of, ragged, spelled


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextTokenizer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield KINDS[request.param](tmp_path_factory.mktemp("tokenizer") / request.param)


@given(data=st.data(), block_tokens=st.integers(1, 9))
def test_blocks_joined_are_the_documents_and_none_is_too_long(tokenizer: TextTokenizer, data: st.DataObject, block_tokens: int) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30), max_size=4))
    numbers = np.arange(len(documents), dtype=np.uint64)
    joined: list[list[int]] = [[] for _ in documents]
    keys = []
    for document, block, key in blocks_of(ragged(documents), numbers, tokenizer.spelling, block_tokens):
        assert len(block.ids) <= block_tokens and (len(block.ids) or not documents[document])
        joined[document] += block.ids.tolist()
        keys.append(int(key[0]))
    assert joined == documents
    assert len(set(keys)) == len(keys)


def test_blocks_of_text_begin_with_white_space(tokenizer: TextTokenizer) -> None:
    batch = tokenizer.encode_batch([" ".join(" ".join(TEXTS).split())])
    blocks = [block.ids.tolist() for _, block, _ in blocks_of(batch, np.zeros(1, np.uint64), tokenizer.spelling, 64)]
    assert len(blocks) > len(batch.ids) // 64
    assert all(spelled(tokenizer, block).startswith(b" ") for block in blocks[1:])


def test_text_without_white_space_is_cut_between_characters(tmp_path: Path) -> None:
    tokenizer = KINDS["byte-level"](tmp_path / "tokenizer")
    ids = tokenizer.encode_batch(["日本語" * 50])
    for block_tokens in range(8, 16):
        for _, block, _ in blocks_of(ids, np.zeros(1, np.uint64), tokenizer.spelling, block_tokens):
            spelled(tokenizer, block.ids.tolist()).decode()


def test_a_plugin_may_make_many_tokens_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tokenizer = KINDS["byte-level"](tmp_path / "tokenizer")
    longest = int((np.diff(tokenizer.spelling.offsets) * tokenizer.spelling.ordinary).argmax())
    batch = ragged([[longest] * 40])
    monkeypatch.setattr(plugins, "BLOCK_TOKENS", 39)
    plugin = plugins.create("stochastok", {"expand_prop": 60.0}, tokenizer)
    result = plugins.apply(plugin, batch, np.zeros(1, np.uint64), 1, tokenizer.vocab_size)
    assert len(result.ids) > 3 * len(batch.ids)
    assert spelled(tokenizer, result.ids.tolist()) == spelled(tokenizer, batch.ids.tolist())


def test_the_first_block_has_the_number_of_its_document() -> None:
    assert block_key(7, 0) == 7 and len({block_key(document, block) for document in range(50) for block in range(50)}) == 2500


def test_a_long_document_is_transformed_in_blocks_and_its_neighbours_as_ever(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = tokenizer.encode_batch([TEXTS[0], " ".join(TEXTS), TEXTS[1]])
    numbers, seed = np.array([5, 6, 7], dtype=np.uint64), 3
    plugin = plugins.create("stochastok", {"expand_prop": 0.3}, tokenizer)

    def apply() -> RaggedBatch:
        return plugins.apply(plugin, batch, numbers, seed, tokenizer.vocab_size)

    whole = documents_of(apply())
    counts = dict(plugin.counts)
    plugin.counts.clear()
    monkeypatch.setattr(plugins, "BLOCK_TOKENS", max(len(whole[0]), len(whole[2]), *map(int, batch.lengths[[0, 2]])))
    result = apply()
    found = documents_of(result)
    assert found[0] == whole[0] and found[2] == whole[2] and found[1] != whole[1]
    assert spelled(tokenizer, found[1]) == spelled(tokenizer, whole[1]) == spelled(tokenizer, batch.document(1).tolist())
    assert result.ids.dtype == batch.ids.dtype
    for count in ("documents", "documents_changed", "tokens_before"):
        assert plugin.counts[count] == counts[count]
    assert plugin.counts["tokens_after"] == len(result.ids)
    assert len(found[1]) == pytest.approx(len(whole[1]), rel=0.1)
