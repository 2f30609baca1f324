"""The benchmark of masked models: its tokenizer is an encoder's, its texts are the dataset's, its ratios are to transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.indexed import IndexedReader
from nemo_ext.tasks.mlm_vocabulary import masking_vocabulary
from recipes.bench.mlm import CONTENDERS, Job, make_dataset, mean_tokens, summarise, texts


def test_texts_are_all_of_the_dataset_in_the_template_of_its_tokenizer(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, documents=60)
    reader, vocabulary = IndexedReader(dataset / "train"), masking_vocabulary(dataset / "tokenizer")
    pieces = texts(dataset, piece_tokens=128)
    assert all((piece[0], piece[-1]) == (*vocabulary.prefix, *vocabulary.suffix) and len(piece) <= 128 for piece in pieces)
    content = [token for piece in pieces for token in piece[1:-1].tolist()]
    assert content == [token for number in range(len(reader)) for token in reader.sequence(number)[:-1].tolist()]
    lengths = reader.document_lengths()
    assert len(lengths) == 60 and lengths.max() > 5 * lengths.min()  # mixed
    assert mean_tokens(dataset, 128) == pytest.approx(sum(map(len, pieces)) / len(pieces))


def test_ratios_are_of_medians_over_turns_to_transformers_as_it_comes() -> None:
    speeds = {
        "sibol packed": [400.0, 440.0],
        "sibol padded": [200.0, 220.0],
        "transformers": [100.0, 120.0],
        "transformers sparse": [150.0] * 2,
    }
    jobs = {name: Job(name, "", "", 3, 8, 2, 1, 16, 1, 1) for name in CONTENDERS}
    summary = summarise([(jobs[name], [speed, speed, 1e9]) for name in CONTENDERS for speed in speeds[name]])
    assert summary["sibol packed"] == {
        "tokens_per_s": 420.0,
        "low": 400.0,
        "high": 440.0,
        "ratio_to_transformers": pytest.approx(420 / 110),
    }
    assert summary["transformers"]["ratio_to_transformers"] == 1
