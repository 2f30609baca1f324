"""The stream of transformed documents: all tokens of every epoch once, the same from any position, new in every epoch."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nemo_ext.common.errors import DataError
from nemo_ext.tasks import online_stream
from nemo_ext.tasks.online_stream import OnlinePlugin, OnlineStream, transform_inside, unit_keys
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer
from nemo_ext.tokenizers.stochastok import Stochastok
from tests.support.small_text import small_tokenizer

EOD = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 319), max_size=12), min_size=1, max_size=8).filter(any)
SPLITTABLE = list(range(300, 320))  # merged last, so that each has a split


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and batches so small that every boundary is met."""
    monkeypatch.setattr(online_stream, "PIECE_TOKENS", 4)
    monkeypatch.setattr(online_stream, "UNITS_PER_BATCH", 3)


def stream_of(
    documents: list[list[int]], tokenizer: TextTokenizer, folder: Path | str, *, eod: bool = True, **changes: Any
) -> OnlineStream:
    stored = [np.array([*document, *([EOD] if eod else [])], dtype=np.uint16) for document in documents]
    options = {"seed": 7, "expand_prop": 1.0, "order_seed": 1, "data": "d"} | changes
    plugin = OnlinePlugin("stochastok", {"expand_prop": options["expand_prop"]}, options["seed"], str(tokenizer.path))
    lengths = np.array([len(document) for document in stored], dtype=np.int32)

    def read(document: int, offset: int, length: int) -> NDArray[Any]:
        return stored[document][offset : offset + length]

    return OnlineStream(read, lengths, plugin, options["order_seed"], options["data"], Path(folder))


@settings(max_examples=20)
@given(documents=DOCUMENTS, eod=st.booleans(), start=st.integers(0, 60), count=st.integers(1, 40))
def test_any_part_of_the_stream_is_the_same_however_it_is_reached(
    documents: list[list[int]], eod: bool, start: int, count: int, tokenizer: TextTokenizer
) -> None:
    with TemporaryDirectory() as folder:
        stream = stream_of(documents, tokenizer, folder, eod=eod)
        try:
            stream.require(100)
        except DataError as error:
            assert "changed nothing" in str(error)
            return
        whole = stream.ids(0, 100)
        assert stream.ids(start, count).tolist() == whole[start : start + count].tolist()
        longer = stream_of(documents, tokenizer, folder, eod=eod)
        longer.require(300)
        assert longer.ids(0, 100).tolist() == whole.tolist()
        elsewhere = stream_of(documents, tokenizer, f"{folder}/other", eod=eod)
        elsewhere.require(300)
        assert elsewhere.ids(37, 200).tolist() == longer.ids(37, 200).tolist()


@given(documents=st.lists(st.lists(st.integers(1, 319), min_size=1, max_size=20), min_size=1, max_size=6, unique_by=tuple))
def test_every_epoch_has_the_text_of_every_document_whole_and_once(documents: list[list[int]], tokenizer: TextTokenizer) -> None:
    with TemporaryDirectory() as folder:
        stream = stream_of([[*document, *SPLITTABLE] for document in documents], tokenizer, folder)
        total = 2 * sum(len(document) + len(SPLITTABLE) + 1 for document in documents)  # splitting only adds tokens
        stream.require(2 * total)
        ids = stream.ids(0, 2 * total).tolist()
        ends = [position for position, value in enumerate(ids) if value == EOD]
        texts = [tokenizer.decode_bytes(ids[first + 1 : last]) for first, last in zip([-1, *ends], ends, strict=False)]
        expected = sorted(tokenizer.decode_bytes([*document, *SPLITTABLE]) for document in documents)
        assert len(texts) >= len(documents)
        for epoch in range(len(texts) // len(documents)):
            assert sorted(texts[epoch * len(documents) : (epoch + 1) * len(documents)]) == expected


def test_epochs_seeds_and_documents_differ(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    document = list(range(200, 300))
    stream = stream_of([document, document], tokenizer, tmp_path)
    stream.require(2000)
    ids = stream.ids(0, 1500).tolist()
    ends = [position for position, value in enumerate(ids) if value == EOD]
    treated = [tuple(ids[first + 1 : last]) for first, last in zip([-1, *ends], ends, strict=False)]
    assert len(set(treated)) == len(treated) > 6
    other = stream_of([document, document], tokenizer, tmp_path, seed=8)
    other.require(1000)
    assert other.ids(0, 500).tolist() != ids[:500]


def test_the_index_is_made_once_and_read_again(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    documents = [[301, 302, 303], [304, 305]]
    stream_of(documents, tokenizer, tmp_path).require(50)
    [file] = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    stream_of(documents, tokenizer, tmp_path).require(50)
    assert file.stat().st_mtime_ns == written
    stream_of(documents, tokenizer, tmp_path, data="other").require(50)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_plugin_that_is_not_a_function_of_its_arguments_is_found_out(
    tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of([SPLITTABLE], tokenizer, tmp_path)
    stream.require(100)
    monkeypatch.setattr(Stochastok, "__call__", lambda self, batch, document_ids, seed: batch)
    with pytest.raises(DataError, match=r"'stochastok' gives documents other lengths than when .*online-.*npy was made"):
        stream.ids(0, 90)


def test_a_plugin_that_changes_nothing_and_a_split_without_tokens_are_refused(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'stochastok' with {'expand_prop': 0.0} changed nothing in \d+ documents"):
        stream_of([[1, 2, 3]], tokenizer, tmp_path, expand_prop=0.0).require(10)
    with pytest.raises(DataError, match="holds no tokens"):
        stream_of([[], []], tokenizer, tmp_path, eod=False).require(10)
    assert not list(tmp_path.iterdir())


def test_keys_of_units_do_not_collide() -> None:
    epochs, documents, pieces = (axis.ravel() for axis in np.meshgrid(np.arange(20), np.arange(2000), np.arange(5)))
    assert len(np.unique(unit_keys(epochs, documents, pieces))) == len(epochs)


@given(parts=st.lists(st.lists(st.integers(2, 9), max_size=4), min_size=1, max_size=6), data=st.data())
@pytest.mark.parametrize(("bos", "eod"), [(0, 1), (0, 0), (None, 1)])
def test_tokens_that_begin_and_end_documents_stay_and_are_not_transformed(
    bos: int | None, eod: int, parts: list[list[int]], data: st.DataObject
) -> None:
    stored, expected = [], []
    for part in parts:
        begin = [bos] if bos is not None and data.draw(st.booleans()) else []
        end = [eod] if data.draw(st.booleans()) else []
        stored.append(np.array([*begin, *part, *end], dtype=np.uint16))
        expected.append([*begin, *(token for token in part for _ in range(2)), *end])

    def double(batch: RaggedBatch) -> RaggedBatch:
        assert not {bos, eod} & set(batch.ids.tolist())
        return RaggedBatch(np.repeat(batch.ids, 2), batch.offsets * 2)

    result = transform_inside(stored, bos, eod, double)
    assert [result.document(number).tolist() for number in range(len(parts))] == expected
