"""A small dataset of real prose, prepared once per session by the product's own tools."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python's documentation topics with a vocabulary of 512, split 80/10/10."""
    from data_tools.prepare import PrepareOptions, prepare
    from data_tools.python_docs import write_python_docs
    from nemo_ext.tokenizers import train

    folder = tmp_path_factory.mktemp("corpus")
    documents = folder / "documents.jsonl"
    write_python_docs(documents)
    text = documents.read_text(encoding="utf-8")
    train([text[:100_000]], 512, folder / "tokenizer")
    prepare(PrepareOptions(inputs=(str(documents),), tokenizer=folder / "tokenizer", out=folder / "dataset", split="80,10,10", workers=1))
    return folder / "dataset"


@pytest.fixture(scope="session")
def masked_datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lines of Python's documentation topics, so of mixed lengths, with a tokenizer for each family of encoders, split 90/10."""
    from tests.support.masked_runs import prepare_lines

    return prepare_lines(tmp_path_factory.mktemp("masked"))
