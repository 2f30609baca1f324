"""`sibol evaluate --suite throughput` on encoders with and without heads and on causal models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from evaluation.compare import compare
from evaluation.report import write_report
from nemo_ext.common.errors import SibolError
from recipes.cli.main import app
from tests.support.encoder_tokenizers import bert_tokenizer
from tests.support.tiny_language_models import TEXTS, train_tokenizer

TINY = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "hidden_size": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with three heads, and GPT-2, which has no pad token."""
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertForSequenceClassification,
        BertModel,
        GPT2Config,
        GPT2LMHeadModel,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("models")
    encoder = BertConfig(vocab_size=220, max_position_embeddings=32, **TINY)
    for name, kind in (("masked", BertForMaskedLM), ("classifier", BertForSequenceClassification), ("base", BertModel)):
        bert_tokenizer(folder / name)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / name / "tokenizer.json"), pad_token="[PAD]", model_max_length=32)
        tokenizer.save_pretrained(folder / name)
        kind(encoder).save_pretrained(folder / name)
    GPT2LMHeadModel(GPT2Config(vocab_size=400, n_positions=64, n_embd=32, n_layer=1, n_head=2)).save_pretrained(folder / "causal")
    train_tokenizer().save_pretrained(folder / "causal")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"{number} {TEXTS[number % 5]}"}) + "\n" for number in range(12)), encoding="utf-8")
    return path


def sibol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--suite", "throughput", "--device", "cpu"])


def refusal(*arguments: object) -> str:
    error = sibol(*arguments).exception
    assert isinstance(error, SibolError), error
    return str(error)


def run(model: Path, data: Path, out: Path, *more: object) -> dict[str, Any]:
    outcome = sibol(model, "--data", data, "--out", out, "--set", "batch_sizes=2,4,64", "--set", "repeats=2", *more)
    assert outcome.exit_code == 0, outcome.exception
    assert "loader_only" in outcome.output
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


@pytest.mark.parametrize("name", ["masked", "classifier", "base", "causal"])
def test_every_kind_of_model_is_timed_by_every_protocol(models: Path, data: Path, tmp_path: Path, name: str) -> None:
    results = run(models / name, data, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "per_document.jsonl").open()]
    cells = [f"cpu/{protocol}/{size}" for size in (2, 4) for protocol in ("docket", "loader_free", "sorted")]
    assert [row["id"] for row in rows[:-1]] == cells and rows[-1]["category"] == "cpu loader_only"
    fastest = min(row["seconds_per_100k_texts"] for row in rows if row["category"] == "cpu docket")
    assert results["metrics"]["seconds_per_100k_texts"]["value"] == fastest
    assert results["metrics"]["cpu_seconds_per_200_texts"]["value"] == pytest.approx(fastest / 500)
    assert results["suite"]["lower_is_better"] and results["data"]["documents"] == 12
    assert results["domains"]["cpu docket"]["how"]["attention"] == "eager"
    assert results["model"]["timed"] == "body without its head" and results["model"]["hardware"]["threads"] >= 1
    assert "Batch sizes 64 exceed the 12 texts and were left out (model)." in results["warnings"]
    assert any(f"texts were cut at {results['model']['max_tokens']} tokens" in warning for warning in results["warnings"])
    assert results["files"] == ["throughput.png"] and (tmp_path / "out" / "throughput.png").stat().st_size > 1000


def test_a_head_is_timed_on_request_and_a_baseline_stands_beside_the_model(models: Path, data: Path, tmp_path: Path) -> None:
    results = run(
        models / "masked", data, tmp_path / "out", "--set", "head=true", "--baseline", models / "causal", "--set", "max_tokens=16"
    )
    assert results["model"]["timed"] == "model with its head" and results["model"]["max_tokens"] == 16
    assert results["model"]["body_parameters"] < results["model"]["parameters"]
    difference = results["baseline"]["difference"]["seconds_per_100k_texts"]
    values = [part["metrics"]["seconds_per_100k_texts"]["value"] for part in (results, results["baseline"])]
    assert difference["value"] == pytest.approx(values[0] - values[1])
    found = compare([tmp_path / "out"])
    suite = found["suites"][0]
    assert [arm["figures"][0] for arm in suite["arms"]] == values[::-1] and not suite["paired"]
    assert "stand side by side" in found["warnings"][0]
    assert write_report([tmp_path / "out"], tmp_path / "report")["comparison"]["suites"][0]["lower_is_better"]
    again = sibol(models / "masked", "--data", data, "--out", tmp_path / "out", "--overwrite", "--set", "texts=2")
    assert again.exit_code == 0 and "Batch sizes 4, 8, 16, 32 exceed the 2 texts" in " ".join(again.output.split())


def test_what_cannot_be_timed_is_refused(models: Path, data: Path, tmp_path: Path) -> None:
    command = ("--data", data, "--out", tmp_path / "out")
    assert "max_tokens=33 does not fit the model" in refusal(models / "base", *command, "--set", "max_tokens=33")
    assert "big is no number of at least 1" in refusal(models / "base", *command, "--set", "batch_sizes=2,big")
    assert "--set repeats=0: expected at least 1" in refusal(models / "base", *command, "--set", "repeats=0")
    assert "All batch sizes (99) exceed the 12 texts" in refusal(models / "base", *command, "--set", "batch_sizes=99")
    assert "attention=flash_attention_2 needs a package" in refusal(models / "causal", *command, "--set", "attention=flash_attention_2")
    assert "--batch-size (see --set batch_sizes=): the suite throughput does not read it" in refusal(
        models / "base", *command, "--batch-size", 4
    )
    assert "--stride: the suite throughput does not read it" in refusal(models / "base", *command, "--stride", 4)
    config = json.loads((models / "base" / "config.json").read_text())
    for name in ("headless", "unknown"):
        (tmp_path / name).mkdir()
        for file in (models / "base").iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "headless" / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    assert "do not fit its config" in refusal(tmp_path / "headless", *command)
    (tmp_path / "unknown" / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchModel"]}))
    assert "The architecture 'NoSuchModel'" in refusal(tmp_path / "unknown", *command)
