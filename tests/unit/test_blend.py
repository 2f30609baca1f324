"""Datasets are blended only when their ids mean the same text, and their shares are those that were asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.blend import Blend, open_blend
from nemo_ext.common.dataset import DatasetInfo, SplitInfo, open_dataset
from nemo_ext.common.errors import DataError
from nemo_ext.engine.resolve import require_sequences
from nemo_ext.tasks.task import TASKS
from tests.unit.test_data_open_dataset import change_manifest, write_dataset


def dataset(name: str, **splits: tuple[int, int]) -> DatasetInfo:
    """A dataset whose splits have the given tokens and bytes."""
    entries = {split: SplitInfo(split, f"{name}/{split}", 1, *counts, 0, 0, 0, name, name) for split, counts in splits.items()}
    return DatasetInfo(Path(name), entries, "t", 10, 0, True, {})


def test_shares_are_the_weights_divided_by_their_sum(tmp_path: Path) -> None:
    first, second = write_dataset(tmp_path / "a"), write_dataset(tmp_path / "b")
    blend = open_blend({str(first): 3.0, str(second): 1.0})
    assert [(part.path, share) for part, share in blend.parts] == [(first, 0.75), (second, 0.25)]
    assert (blend.tokenizer_fingerprint, blend.vocab_size, blend.eod_id) == ("f" * 64, 10, 0)


def test_datasets_of_two_tokenizers_are_refused_with_both_names(tmp_path: Path) -> None:
    first, second = write_dataset(tmp_path / "a"), write_dataset(tmp_path / "b")
    change_manifest(second, lambda manifest: manifest["tokenizer"].update(fingerprint="0" * 64))
    with pytest.raises(DataError) as caught:
        open_blend({str(first): 1.0, str(second): 1.0})
    assert all(part in str(caught.value) for part in (str(first), "ffffffffffff", str(second), "000000000000"))


def test_one_dataset_has_its_own_fingerprint_and_a_blend_one_of_datasets_and_shares(tmp_path: Path) -> None:
    first, second = str(write_dataset(tmp_path / "a")), str(write_dataset(tmp_path / "b"))
    assert open_blend({first: 5.0}).fingerprint == open_dataset(first).fingerprint
    even, uneven = open_blend({first: 1.0, second: 1.0}), open_blend({first: 1.0, second: 2.0})
    assert len({even.fingerprint, uneven.fingerprint, open_dataset(first).fingerprint}) == 3
    assert open_blend({first: 2.0, second: 4.0}).fingerprint == uneven.fingerprint


def test_a_split_is_blended_from_the_datasets_that_have_it() -> None:
    blend = Blend(((dataset("a", train=(10, 40)), 0.5), (dataset("b", train=(10, 20), validation=(5, 15)), 0.5)))
    assert [share for _, share in blend.split("train")] == [0.5, 0.5]
    assert [(split.prefix, share) for split, share in blend.split("validation")] == [("b/validation", 1.0)]
    assert blend.split("test") == []
    assert (blend.bytes_per_token("train"), blend.bytes_per_token("validation")) == (3.0, 3.0)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0.01, 100)), min_size=1, max_size=5))
def test_bytes_per_token_lie_between_those_of_the_datasets(parts: list[tuple[int, int, float]]) -> None:
    total = sum(weight for _, _, weight in parts)
    blend = Blend(
        tuple((dataset(str(number), train=(tokens, size)), weight / total) for number, (tokens, size, weight) in enumerate(parts))
    )
    ratios = [size / tokens for tokens, size, _ in parts]
    assert min(ratios) * (1 - 1e-9) <= blend.bytes_per_token("train") <= max(ratios) * (1 + 1e-9)


def test_a_dataset_of_sentences_is_refused_by_a_task_that_reads_documents() -> None:
    task = TASKS.get("pretrain")
    documents = dataset("a", train=(10, 40))
    require_sequences(task, Blend(((documents, 1.0),)))
    sentences = replace(documents, manifest={"sentences": True})
    with pytest.raises(DataError, match=r"'pretrain' needs a sequence per document, but a was not prepared so.*without --sentences"):
        require_sequences(task, Blend(((documents, 0.5), (sentences, 0.5))))
