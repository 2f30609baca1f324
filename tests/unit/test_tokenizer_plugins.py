"""The plugin seam: ids to ids, settings checked, results checked, other packages welcome. And the batches that it works on."""

from __future__ import annotations

from collections import Counter
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
from nemo_ext.tokenizers.result_check import CUT_ANEW, OTHER_TEXT, UNCHANGED, compare
from nemo_ext.tokenizers.spelling import make_spelling
from tests.support.small_text import small_tokenizer

DOCUMENTS = st.lists(st.lists(st.integers(0, 300), max_size=6), max_size=8)


@dataclass
class RotateSettings:
    by: int = setting(5, "added to every id; what ids spell repeats after 5", minimum=0)
    vocabulary: int = setting(320, "ids wrap here")
    mistake: str = setting("none", "for tests", choices=("none", "drop", "range"))


class Rotate:
    name = "rotate"
    settings_type = RotateSettings

    def __init__(self, settings: RotateSettings, tokenizer: object) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        self.counts["calls"] += 1
        if self.settings.mistake == "drop":
            return from_lengths(batch.ids[: batch.offsets[1]], batch.lengths[:1])
        ids = (batch.ids.astype(np.int64) + self.settings.by) % self.settings.vocabulary
        return RaggedBatch(ids + (400 if self.settings.mistake == "range" else 0), batch.offsets)


class Letters:
    """As much of a tokenizer as plugins need: the text of 320 ids, the letters a to e over and over, and id 319 for control."""

    spelling = make_spelling([b"abcde"[token % 5 : token % 5 + 1] for token in range(319)] + [b"<end>"], np.arange(320) < 319)


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
    return plugins.apply(rotate(*assignments, name=name), ragged(documents), np.arange(len(documents), dtype=np.uint64), 1, 320)


def rotate(*assignments: str, name: str = "rotate") -> plugins.Plugin:
    return plugins.create(name, plugins.parse_settings(name, assignments), Letters())  # type: ignore[arg-type]


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
    assert plugins.parse_settings("rotate", ["by=10"]) == {"by": 10, "vocabulary": 320, "mistake": "none"}
    result = run([[1, 2], [318]], "rotate.by=10")
    assert documents_of(result) == [[11, 12], [8]] and result.ids.dtype == np.uint16


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("by", "--set 'by' has no '='"),
        ("bye=1", "'rotate' has no setting 'bye'. Did you mean 'by'"),
        ("by=many", "'many' does not fit plugin setting rotate.by"),
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
    with pytest.raises(DataError, match=r"returned ids 406\.\.407, outside the vocabulary of 320"):
        run([[1], [2]], "mistake=range")


def test_a_plugin_that_changes_the_text_is_caught_with_the_document() -> None:
    with pytest.raises(DataError, match=r"'rotate' changed the text of 2 document.*first being number 1, 2 of its batch"):
        run([[], [1], [2]], "by=3")


@pytest.mark.parametrize(("before", "after"), [([0, 319], [319, 0]), ([319], [318]), ([319], []), ([0], [0, 319]), ([319], [5, 319])])
def test_a_plugin_that_touches_control_tokens_is_caught(before: list[int], after: list[int]) -> None:
    assert compare(ragged([before, before]), ragged([before, after]), Letters.spelling).tolist() == [UNCHANGED, OTHER_TEXT]


@given(st.lists(st.sampled_from([b"a", b"bc", b"abc", b"b", b"c", b"ab"]), max_size=8), st.lists(st.integers(0, 5), max_size=8))
def test_documents_compare_as_the_bytes_that_they_spell(spelled: list[bytes], other: list[int]) -> None:
    vocabulary = [b"a", b"bc", b"abc", b"b", b"c", b"ab"]
    one = [vocabulary.index(token) for token in spelled]
    expected = (
        UNCHANGED if one == other else CUT_ANEW if b"".join(spelled) == b"".join(vocabulary[token] for token in other) else OTHER_TEXT
    )
    assert compare(ragged([one]), ragged([other]), make_spelling(vocabulary, np.ones(6, dtype=bool))).tolist() == [expected]


def test_what_a_plugin_did_is_counted_over_all_calls() -> None:
    plugin = rotate()
    for documents in ([[1, 2], [], [3]], [[4]]):
        plugins.apply(plugin, ragged(documents), np.zeros(len(documents), np.uint64), 1, 320)
    assert plugin.counts == {"documents": 4, "documents_changed": 3, "tokens_before": 4, "tokens_after": 4, "calls": 2}


PACKAGE = """
from dataclasses import dataclass
@dataclass
class Settings: pass
class FiveOn:
    name, settings_type = "five_on", Settings
    def __init__(self, settings, tokenizer): self.settings = settings
    def __call__(self, batch, document_ids, seed):
        return type(batch)(batch.ids + 5, batch.offsets)
"""


def test_an_installed_package_adds_a_plugin_in_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ten_lines.py").write_text(PACKAGE)
    (tmp_path / "ten_lines-1.dist-info").mkdir()
    (tmp_path / "ten_lines-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ten_lines\nVersion: 1\n")
    (tmp_path / "ten_lines-1.dist-info" / "entry_points.txt").write_text("[sibol.tokenizers]\nfive_on = ten_lines:FiveOn\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "five_on" in plugins.PLUGINS.names()
    assert documents_of(run([[1, 2]], name="five_on")) == [[6, 7]]


def test_a_real_tokenizer_reaches_the_plugin(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path / "tokenizer")
    plugin = plugins.create("vanilla", {}, tokenizer)
    batch = tokenizer.encode_batch(["ang puno"])
    assert plugins.apply(plugin, batch, np.zeros(1, np.uint64), 0, tokenizer.vocab_size) == batch
