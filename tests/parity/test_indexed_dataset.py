"""The .bin/.idx that we write are, byte for byte, what Megatron-Core writes, and Megatron reads them back."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.indexed import IndexedWriter
from data_tools.prepare import PrepareOptions, prepare
from nemo_ext.tokenizers.text_tokenizer import id_dtype
from tests.support.ranks import run_ranks
from tests.support.small_text import TEXTS, VOCAB_SIZE, small_tokenizer, write_jsonl

DOCUMENTS = st.lists(st.lists(st.integers(0, 65_535), max_size=40), max_size=30)
VOCABULARY_SIZES = (1, 255, 4096, 65_499, 65_500, 65_536, 262_144)


def megatron_files(folder: Path, documents: list[list[int]], dtype: Any) -> tuple[bytes, bytes]:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "megatron.bin"), dtype=dtype)
    for document in documents:
        builder.add_item(torch.tensor(document, dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(folder / "megatron.idx"))
    return (folder / "megatron.bin").read_bytes(), (folder / "megatron.idx").read_bytes()


def compare_random_documents(folder: str) -> int:
    """On a rank: compare many random datasets; returns how many."""
    compared = 0

    @settings(deadline=None, max_examples=100, database=None)
    @given(DOCUMENTS, st.sampled_from([np.uint16, np.int32]), st.integers(1, 7))
    def compare(documents: list[list[int]], dtype: Any, batch: int) -> None:
        nonlocal compared
        with IndexedWriter(Path(folder, "ours"), np.dtype(dtype)) as writer:
            for start in range(0, len(documents), batch):
                part = documents[start : start + batch]
                writer.add(np.array(list(chain.from_iterable(part)), dtype=np.int64), np.array([len(document) for document in part]))
            writer.finish()
        expected = megatron_files(Path(folder), documents, dtype)
        assert Path(folder, "ours.bin").read_bytes() == expected[0]
        assert Path(folder, "ours.idx").read_bytes() == expected[1]
        compared += 1

    compare()
    return compared


def choose_dtypes() -> list[str]:
    """On a rank: the dtype that Megatron gives to each vocabulary size."""
    from megatron.core.datasets.indexed_dataset import DType

    return [DType.optimal_dtype(size).__name__ for size in VOCABULARY_SIZES]


def read_and_rewrite(folder: str, split: str) -> tuple[list[list[int]], bool]:
    """On a rank: the documents of a prepared split as Megatron reads them, and whether it would write the same bytes."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(Path(folder, "set", split)))
    documents = [dataset[number].tolist() for number in range(len(dataset))]
    expected = megatron_files(Path(folder), documents, dataset.index.dtype)
    return documents, all(Path(folder, "set", f"{split}.{kind}").read_bytes() == expected[i] for i, kind in enumerate(("bin", "idx")))


def test_random_documents_are_written_byte_for_byte_as_megatron_does(tmp_path: Path) -> None:
    assert run_ranks(1, compare_random_documents, str(tmp_path))[0] >= 100


def test_the_width_of_ids_follows_megatrons_rule() -> None:
    assert [id_dtype(size).name for size in VOCABULARY_SIZES] == run_ranks(1, choose_dtypes)[0]


def test_megatron_reads_a_prepared_dataset_and_would_write_the_same_bytes(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path / "tokenizer")
    source = write_jsonl(tmp_path / "text.jsonl", TEXTS)
    manifest = prepare(PrepareOptions((str(source),), tokenizer.path, tmp_path / "set", split="60,40,0"))
    texts: list[str] = []
    for split in ("train", "validation"):
        documents, same_bytes = run_ranks(1, read_and_rewrite, str(tmp_path), split)[0]
        assert same_bytes
        assert len(documents) == manifest["splits"][split]["documents"] > 0
        assert all(document[-1] == tokenizer.eod_id and max(document) < VOCAB_SIZE for document in documents)
        texts += [tokenizer.decode(document[:-1]) for document in documents]
    assert sorted(texts) == sorted(TEXTS)
