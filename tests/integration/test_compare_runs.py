"""`sibol compare` follows a measured model to its run and dataset, and says how many bytes of text each arm has read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_tools.prepare import PrepareOptions, prepare
from evaluation.compare import compare
from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.files import sha256_of_file, write_json
from tests.support.evaluation_folders import write_results, write_run
from tests.support.tiny_language_models import TEXTS, train_tokenizer


def arm(folder: Path, vocab_size: int, score: float, **settings: Any) -> tuple[Path, Path]:
    """Dataset, run and results of one model, tied together by the provenance of an export."""
    texts = folder.parent / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    train_tokenizer(vocab_size).save_pretrained(folder / "tokenizer")
    prepare(PrepareOptions((str(texts),), folder / "tokenizer", folder / "dataset", split="1,0,0", workers=1))
    run = write_run(folder / "run", **settings)
    exported = {
        "run": {"folder": str(run), "run_yaml_sha256": sha256_of_file(run / "run.yaml")},
        "source": {"step": 10},
        "weights": {"fingerprint": folder.name, "parameters": 1000},
    }
    (folder / "model").mkdir()
    write_json(folder / "model" / "provenance.json", exported)
    provenance = {"run": "run", "step": 10, "weights_fingerprint": folder.name}
    return run, write_results(folder / "results", [score, 0.5] * 20, model="model", provenance=provenance)


def test_a_difference_of_tokenizers_is_found_and_with_it_that_of_the_bytes_that_were_read(tmp_path: Path) -> None:
    small_run, small = arm(tmp_path / "small", 300, 0.25)
    large_run, large = arm(tmp_path / "large", 400, 0.75, optimizer__learning_rate=0.002)
    comparison = compare([small, large], factors=["dataset.tokenizer"])
    found = {one["name"]: one for one in comparison["differences"]}
    assert [name for name, one in found.items() if one["factor"]] == ["dataset.tokenizer"]
    assert set(found) == {"dataset.tokenizer", "dataset.train_tokens", "optimizer.learning_rate", "trained.bytes"}
    for folder, label in (("small", "small/model"), ("large", "large/model")):
        split = open_dataset(tmp_path / folder / "dataset").splits["train"]
        assert found["trained.bytes"]["values"][label] == [round(1000 * split.bytes / split.tokens)]  # the export is of step 10 of 20
    warnings = " ".join(comparison["warnings"])
    assert "trained.bytes differs by" in warnings and "optimizer.learning_rate differs: small/model 0.001, large/model 0.002." in warnings
    assert comparison["unknown"] == []
    runs = compare([small_run, large_run])["runs"]
    assert runs[0]["bytes"] == pytest.approx(2 * found["trained.bytes"]["values"]["small/model"][0], abs=1)


def test_a_run_that_was_changed_after_the_export_is_not_taken_for_the_models(tmp_path: Path) -> None:
    small_run, small = arm(tmp_path / "small", 300, 0.25)
    _, large = arm(tmp_path / "large", 400, 0.75)
    with (small_run / "run.yaml").open("a") as handle:
        handle.write("# changed\n")
    (line,) = compare([small, large])["unknown"]
    assert line.startswith("small/model: the run folder that its provenance.json names is gone or changed")
