"""The stream of transformed documents: all tokens of every epoch once, the same from any position, new in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nemo_ext.common.errors import DataError
from nemo_ext.common.registry import Registry
from nemo_ext.tasks import online_stream
from nemo_ext.tasks.online_stream import OnlinePlugin, OnlineStream, unit_keys
from nemo_ext.tokenizers import RaggedBatch, plugins
from nemo_ext.tokenizers.ragged import from_lengths
from tests.support.small_text import small_tokenizer

EOD = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 319), max_size=12), min_size=1, max_size=8).filter(any)


@dataclass
class StutterSettings:
    probability: float = 0.5


class Stutter:
    """Says a token twice with some probability. A call is counted."""

    name = "stutter"
    settings_type = StutterSettings
    calls = 0

    def __init__(self, settings: StutterSettings, tokenizer: object) -> None:
        self.settings = settings

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        assert EOD not in batch.ids
        type(self).calls += 1
        documents = []
        for number, key in enumerate(document_ids.tolist()):
            ids = batch.document(number)
            documents.append(np.repeat(ids, 1 + (np.random.default_rng([seed, key]).random(len(ids)) < self.settings.probability)))
        return from_lengths(np.concatenate(documents), np.array([len(ids) for ids in documents]))


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer").path)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and batches so small that every boundary is met; the plugin stands in for any."""
    monkeypatch.setattr(plugins, "PLUGINS", Registry("tokenizer plugin", "sibol.tokenizers", {"stutter": f"{__name__}:Stutter"}))
    monkeypatch.setattr(plugins, "apply", lambda plugin, batch, document_ids, seed, vocab_size: plugin(batch, document_ids, seed))
    monkeypatch.setattr(online_stream, "PIECE_TOKENS", 4)
    monkeypatch.setattr(online_stream, "UNITS_PER_BATCH", 3)


def stream_of(documents: list[list[int]], tokenizer_dir: str, folder: Path | str, *, eod: bool = True, **changes: Any) -> OnlineStream:
    stored = [np.array([*document, *([EOD] if eod else [])], dtype=np.uint16) for document in documents]
    options = {"seed": 7, "probability": 0.5, "order_seed": 1, "data": "d"} | changes
    plugin = OnlinePlugin("stutter", {"probability": options["probability"]}, options["seed"], tokenizer_dir)
    lengths = np.array([len(document) for document in stored], dtype=np.int32)
    return OnlineStream(
        lambda document, offset, length: stored[document][offset : offset + length],
        lengths, EOD, plugin, options["order_seed"], options["data"], Path(folder),
    )  # fmt: skip


def runs_of(ids: list[int]) -> list[int]:
    """Ids without immediate repetition."""
    return [value for position, value in enumerate(ids) if position == 0 or ids[position - 1] != value]


@given(documents=DOCUMENTS, eod=st.booleans(), start=st.integers(0, 60), count=st.integers(1, 40))
def test_any_part_of_the_stream_is_the_same_however_it_is_reached(
    documents: list[list[int]], eod: bool, start: int, count: int, tokenizer_dir: str
) -> None:
    with TemporaryDirectory() as folder:
        stream = stream_of(documents, tokenizer_dir, folder, eod=eod, probability=0.9)
        try:
            stream.require(100)
        except DataError as error:
            assert "changed nothing" in str(error)
            return
        whole = stream.ids(0, 100)
        assert stream.ids(start, count).tolist() == whole[start : start + count].tolist()
        longer = stream_of(documents, tokenizer_dir, folder, eod=eod, probability=0.9)
        longer.require(300)
        assert longer.ids(0, 100).tolist() == whole.tolist()
        elsewhere = stream_of(documents, tokenizer_dir, f"{folder}/other", eod=eod, probability=0.9)
        elsewhere.require(300)
        assert elsewhere.ids(37, 200).tolist() == longer.ids(37, 200).tolist()


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_every_epoch_has_every_document_whole_and_once(tokenizer_dir: str, lengths: list[int]) -> None:
    with TemporaryDirectory() as folder:
        # rising ids, so that a document can be told from its stutter
        documents = [[1 + 30 * number + position for position in range(length)] for number, length in enumerate(lengths)]
        stream = stream_of(documents, tokenizer_dir, folder, probability=0.999)
        stream.require(3 * 2 * (sum(lengths) + len(lengths)))
        ids = stream.ids(0, 2 * (sum(lengths) + len(lengths))).tolist()
        split_at = [position for position, value in enumerate(ids) if value == EOD]
        found = [runs_of(ids[first:last]) for first, last in zip([0, *(end + 1 for end in split_at)], split_at, strict=False)]
        for epoch in range(len(found) // len(documents)):
            assert sorted(found[epoch * len(documents) : (epoch + 1) * len(documents)]) == sorted(documents)


def test_epochs_seeds_and_documents_differ(tokenizer_dir: str, tmp_path: Path) -> None:
    document = list(range(1, 100))
    stream = stream_of([document, document], tokenizer_dir, tmp_path)
    stream.require(2000)
    ids = stream.ids(0, 1500).tolist()
    ends = [position for position, value in enumerate(ids) if value == EOD]
    treated = [tuple(ids[first + 1 : last]) for first, last in zip([-1, *ends], ends, strict=False)]
    assert len(set(treated)) == len(treated) > 6
    other = stream_of([document, document], tokenizer_dir, tmp_path, seed=8)
    other.require(1000)
    assert other.ids(0, 500).tolist() != ids[:500]


def test_the_index_is_made_once_and_read_again(tokenizer_dir: str, tmp_path: Path) -> None:
    documents = [[1, 2, 3], [4, 5]]
    stream_of(documents, tokenizer_dir, tmp_path).require(50)
    calls = Stutter.calls
    again = stream_of(documents, tokenizer_dir, tmp_path)
    again.require(50)
    assert Stutter.calls == calls
    assert len(list(tmp_path.iterdir())) == 1
    stream_of(documents, tokenizer_dir, tmp_path, data="other").require(50)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_plugin_that_is_not_a_function_of_its_arguments_is_found_out(
    tokenizer_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of([list(range(1, 80))], tokenizer_dir, tmp_path)
    stream.require(100)
    monkeypatch.setattr(Stutter, "__call__", lambda self, batch, document_ids, seed: batch)
    with pytest.raises(DataError, match=r"'stutter' gives documents other lengths than when .*online-.*npy was made"):
        stream.ids(0, 90)


def test_a_plugin_that_changes_nothing_and_a_split_without_tokens_are_refused(tokenizer_dir: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'stutter' with {'probability': 0.0} changed nothing in \d+ documents"):
        stream_of([[1, 2, 3]], tokenizer_dir, tmp_path, probability=0.0).require(10)
    with pytest.raises(DataError, match="holds no tokens"):
        stream_of([[], []], tokenizer_dir, tmp_path, eod=False).require(10)
    assert not list(tmp_path.iterdir())


def test_keys_of_units_do_not_collide() -> None:
    epochs, documents, pieces = (axis.ravel() for axis in np.meshgrid(np.arange(20), np.arange(2000), np.arange(5)))
    assert len(np.unique(unit_keys(epochs, documents, pieces))) == len(epochs)
