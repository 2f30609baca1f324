"""The plugin seam: ids to ids, settings checked, results checked, other packages welcome. And the batches that it works on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.registry import Registry
from nemo_ext.config.schema import setting
from nemo_ext.tokenizers import RaggedBatch, plugins
from nemo_ext.tokenizers.ragged import from_lengths
from tests.support.small_text import small_tokenizer

DOCUMENTS = st.lists(st.lists(st.integers(0, 300), max_size=6), max_size=8)


@dataclass
class RotateSettings:
    by: int = setting(1, "added to every id", minimum=0)
    vocabulary: int = setting(320, "ids wrap here")
    mistake: str = setting("none", "for tests", choices=("none", "drop", "range"))


class Rotate:
    name = "rotate"
    settings_type = RotateSettings

    def __init__(self, settings: RotateSettings, tokenizer: object) -> None:
        self.settings = settings

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        if self.settings.mistake == "drop":
            return from_lengths(batch.ids[: batch.offsets[1]], batch.lengths[:1])
        ids = (batch.ids.astype(np.int64) + self.settings.by) % self.settings.vocabulary
        return RaggedBatch(ids + (400 if self.settings.mistake == "range" else 0), batch.offsets)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    builtin = {"vanilla": "nemo_ext.tokenizers.vanilla:Vanilla", "rotate": f"{__name__}:Rotate"}
    monkeypatch.setattr(plugins, "PLUGINS", Registry("tokenizer plugin", "sibol.tokenizers", builtin))


def ragged(documents: list[list[int]]) -> RaggedBatch:
    return from_lengths(
        np.array(list(chain.from_iterable(documents)), dtype=np.uint16), np.array([len(document) for document in documents], dtype=np.int64)
    )


def documents_of(batch: RaggedBatch) -> list[list[int]]:
    return [batch.document(number).tolist() for number in range(batch.documents)]


def run(documents: list[list[int]], *assignments: str, name: str = "rotate") -> RaggedBatch:
    plugin = plugins.create(name, plugins.parse_settings(name, assignments), None)  # type: ignore[arg-type]
    return plugins.apply(plugin, ragged(documents), np.zeros(len(documents), np.uint64), seed=1, vocab_size=320)


@given(DOCUMENTS)
def test_batches_give_back_their_documents_and_append_to_each(documents: list[list[int]]) -> None:
    batch = ragged(documents)
    assert documents_of(batch) == documents
    assert documents_of(batch.append_token(7)) == [[*document, 7] for document in documents]


@given(DOCUMENTS, st.randoms())
def test_selection_keeps_the_chosen_documents_in_order(documents: list[list[int]], random: Any) -> None:
    chosen = [random.random() < 0.5 for _ in documents]
    selected = ragged(documents).select(np.array(chosen, dtype=bool))
    assert documents_of(selected) == [document for document, keep in zip(documents, chosen, strict=True) if keep]


@given(DOCUMENTS)
def test_vanilla_changes_nothing(documents: list[list[int]]) -> None:
    assert documents_of(run(documents, name="vanilla")) == documents


def test_settings_are_typed_have_defaults_and_reach_the_plugin() -> None:
    assert plugins.parse_settings("rotate", ["by=3"]) == {"by": 3, "vocabulary": 320, "mistake": "none"}
    result = run([[1, 2], [319]], "by=3")
    assert documents_of(result) == [[4, 5], [2]] and result.ids.dtype == np.uint16


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("by", "--set 'by' has no '='"),
        ("bye=1", "'rotate' has no setting 'bye'. Did you mean 'by'"),
        ("by=many", "'many' does not fit rotate.by"),
        ("by=-1", "rotate.by=-1 is too small. It must be at least 0"),
        ("mistake=big", "rotate.mistake=big is not known. Choose one of: none, drop, range"),
    ],
)
def test_settings_that_do_not_fit_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugins.parse_settings("rotate", [assignment])


def test_unknown_plugins_list_the_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"Unknown tokenizer plugin 'vanila'. Did you mean 'vanilla'"):
        plugins.parse_settings("vanila", [])


def test_a_plugin_that_loses_documents_or_leaves_the_vocabulary_is_caught() -> None:
    with pytest.raises(DataError, match=r"'rotate' returned 1 documents.*2 documents were expected"):
        run([[1], [2]], "mistake=drop")
    with pytest.raises(DataError, match=r"returned ids 402\.\.403, outside the vocabulary of 320"):
        run([[1], [2]], "mistake=range")


def test_a_real_tokenizer_reaches_the_plugin(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path / "tokenizer")
    plugin = plugins.create("vanilla", {}, tokenizer)
    batch = tokenizer.encode_batch(["ang puno"])
    assert plugins.apply(plugin, batch, np.zeros(1, np.uint64), 0, tokenizer.vocab_size) == batch
