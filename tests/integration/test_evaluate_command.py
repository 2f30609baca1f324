"""`sibol evaluate` on real folders: files written, datasets read, and refusals that say what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from evaluation.loading import load_model, open_folder
from evaluation.report import write_report
from nemo_ext.common.errors import ConfigError, ConversionError, DataError, OutputExistsError, SibolError
from recipes.cli.main import app
from tests.support.tiny_language_models import TEXTS, change_weights, save_tiny_qwen2, train_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` and `other`, which has another tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_qwen2(folder / "model")
    save_tiny_qwen2(folder / "other", vocab_size=300, seed=1)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    records = [{"text": text, "id": f"t{number}", "domain": "long" if len(text) > 100 else "short"} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def sibol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    error = sibol(*arguments).exception
    assert isinstance(error, SibolError), error
    return str(error)


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    results = json.loads((folder / "results.json").read_text())
    return results, [json.loads(line) for line in (folder / "per_document.jsonl").read_text().splitlines()]


def test_results_hold_metrics_of_both_models_their_paired_difference_and_every_document(models: Path, data: Path, tmp_path: Path) -> None:
    outcome = sibol(models / "model", "--data", data, "--out", tmp_path / "out", "--baseline", models / "other", "--stride", 8)
    assert outcome.exit_code == 0, outcome.exception
    assert "difference" in outcome.output and "uniform" in outcome.output
    results, rows = read(tmp_path / "out")
    assert results["schema"] == "sibol.results/1"
    assert results["suite"]["name"] == "bits_per_byte"
    assert [row["id"] for row in rows] == [f"t{number}" for number in range(len(TEXTS))]
    size = sum(len(text.encode()) for text in TEXTS)
    assert results["data"]["bytes"] == sum(row["bytes"] for row in rows) == size
    value = results["metrics"]["bits_per_byte"]
    assert value["value"] == pytest.approx(sum(row["bits"] for row in rows) / size)
    assert value["low"] <= value["value"] <= value["high"]
    difference = results["baseline"]["difference"]["bits_per_byte"]
    assert difference["value"] == pytest.approx(value["value"] - results["baseline"]["metrics"]["bits_per_byte"]["value"])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert sum(domain["bytes"] for domain in results["domains"].values()) == size
    assert results["per_document"]["sha256"] == hashlib.sha256((tmp_path / "out" / "per_document.jsonl").read_bytes()).hexdigest()
    assert results["model"]["weights_sha256"] != results["baseline"]["model"]["weights_sha256"]
    assert (results["model"]["context_tokens"], results["model"]["stride_tokens"]) == (32, 8)


def test_a_prepared_dataset_gives_the_same_scores_as_its_text(models: Path, data: Path, tmp_path: Path) -> None:
    from data_tools.prepare import PrepareOptions, prepare

    # Prepared with the tokenizer of another model: the stored ids mean nothing to the one that is scored.
    prepare(PrepareOptions((str(data),), models / "other", tmp_path / "dataset", split="1,0,0", workers=1))
    assert sibol(models / "model", "--data", data, "--out", tmp_path / "a").exit_code == 0
    assert sibol(models / "model", "--data", tmp_path / "dataset", "--split", "train", "--out", tmp_path / "b").exit_code == 0
    (from_text, text_rows), (from_dataset, dataset_rows) = read(tmp_path / "a"), read(tmp_path / "b")
    assert sorted(row["bits"] for row in dataset_rows) == pytest.approx(sorted(row["bits"] for row in text_rows), rel=1e-6)
    assert from_dataset["data"]["bytes"] == from_text["data"]["bytes"]
    assert (
        from_dataset["warnings"] == from_text["warnings"] == ["The intervals rest on 5 documents; with fewer than 20 they are too narrow."]
    )
    assert "has no split 'validation'. It has: train" in refusal(
        models / "model", "--data", tmp_path / "dataset", "--split", "validation", "--out", tmp_path / "c"
    )


def test_existing_results_are_kept_unless_overwriting_is_asked_for_and_foreign_folders_always(
    models: Path, data: Path, tmp_path: Path
) -> None:
    command = (models / "model", "--data", data, "--out", tmp_path / "out")
    assert sibol(*command).exit_code == 0
    assert "already exists" in refusal(*command)
    assert sibol(*command, "--overwrite").exit_code == 0
    (tmp_path / "out" / "thesis.tex").touch()
    assert isinstance(sibol(*command, "--overwrite").exception, OutputExistsError)
    assert "holds per_document.jsonl, results.json, thesis.tex" in refusal(*command, "--overwrite")
    (tmp_path / "theirs").mkdir()
    for content in ('{"results": {}}', "[]"):  # of other programs
        (tmp_path / "theirs" / "results.json").write_text(content)
        assert "was not written by `sibol evaluate`" in refusal(*command[:-1], tmp_path / "theirs", "--overwrite")
        assert (tmp_path / "theirs" / "results.json").read_text() == content


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("config.json", "model config not found"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused_by_name(models: Path, tmp_path: Path, file: str, complaint: str) -> None:
    shutil.copytree(models / "model", tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    with pytest.raises(DataError, match=complaint):
        open_folder(tmp_path / "model")
    with pytest.raises(DataError, match="does not exist"):
        open_folder(tmp_path / "elsewhere")


def test_a_chat_template_is_part_of_the_fingerprint_of_the_tokenizer(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages }}")
    plain, chat = (open_folder(folder / "model").as_dict() for folder in (models, tmp_path))
    assert plain["tokenizer_sha256"] != chat["tokenizer_sha256"] and plain["weights_sha256"] == chat["weights_sha256"]


def test_a_missing_shard_is_named(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "model", tmp_path / "model")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"lacks 1 of its 2 weight files: model-2\.safetensors"):
        open_folder(tmp_path / "model")


def test_text_that_a_tokenizer_loses_is_counted_in_a_warning(models: Path, data: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<unk>": 0, "The": 1, "fox": 2, "the": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    shutil.copytree(models / "model", tmp_path / "model")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<unk>").save_pretrained(tmp_path / "model")
    text = tmp_path / "fox.txt"
    text.write_text("The quick brown fox.")
    command = (models / "model", "--baseline", tmp_path / "model", "--data", text, "--out", tmp_path / "out")
    assert "Warning: The baseline's tokenizer wrote 3 unknown tokens" in sibol(*command).output
    assert read(tmp_path / "out")[0]["warnings"][1:] == [
        "The baseline's tokenizer does not give back the exact text of 1 of 1 documents.",
        "The baseline's tokenizer wrote 3 unknown tokens, which makes text it cannot express look cheap.",
    ]


def test_weights_that_would_stay_random_or_unused_are_refused(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "model", tmp_path / "model")
    change_weights(tmp_path / "model", lambda weights: weights.pop("model.norm.weight"))
    with pytest.raises(ConversionError, match=r"1 tensors would start from random values \(model\.norm\.weight\)"):
        load_model(open_folder(tmp_path / "model"), "cpu")
    shutil.copytree(models / "model", tmp_path / "extra")
    change_weights(tmp_path / "extra", lambda weights: weights.update({"model.layers.7.mlp.weight": weights["model.norm.weight"].clone()}))
    with pytest.raises(ConversionError, match=r"1 tensors would be left unused \(model\.layers\.7\.mlp\.weight\)"):
        load_model(open_folder(tmp_path / "extra"), "cpu")


def test_truncated_weights_are_refused(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be loaded by transformers"):
        load_model(open_folder(tmp_path / "model"), "cpu")


def test_a_score_that_is_not_finite_names_the_document(data: Path, tmp_path: Path) -> None:
    folder = save_tiny_qwen2(tmp_path / "model", tied=False)
    first = train_tokenizer()(TEXTS[2], add_special_tokens=False)["input_ids"][0]  # a letter that only this text begins with
    change_weights(folder, lambda weights: weights["model.embed_tokens.weight"][first].fill_(float("nan")))
    assert "document 't2' the log-likelihood nan" in refusal(folder, "--data", data, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_sees_later_tokens_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    BertLMHeadModel(
        BertConfig(
            vocab_size=400,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=0.3,
            is_decoder=False,
        )
    ).save_pretrained(tmp_path / "model")
    train_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="not causal"):
        load_model(open_folder(tmp_path / "model"), "cpu")


def test_settings_that_do_not_fit_are_refused_before_a_model_is_loaded_or_used(models: Path, data: Path, tmp_path: Path) -> None:
    command = (models / "model", "--data", data, "--out", tmp_path / "out")
    assert "--context 33 does not fit" in refusal(*command, "--context", 33)
    assert "stride of the rolling windows is 40 tokens" in refusal(*command, "--stride", 40)
    save_tiny_qwen2(tmp_path / "short", context=16)
    assert "--context 20 does not fit the model in" in refusal(*command, "--context", 20, "--baseline", tmp_path / "short")
    assert "Cannot bootstrap with 2000 resamples at confidence 95.0" in refusal(*command, "--confidence", 95)
    for device in ("tpu", "cudas", "cuda:one"):
        assert f"Unknown device '{device}'" in refusal(*command, "--device", device)
    assert "PyTorch finds" in refusal(*command, "--device", "cuda:99")
    assert "Did you mean 'bits_per_byte'?" in refusal(*command, "--suite", "bits_per_bite")
    assert not (tmp_path / "out").exists()


def test_the_report_shows_the_paired_change_from_the_first_results_to_the_second(models: Path, data: Path, tmp_path: Path) -> None:
    for name in ("model", "other"):
        assert sibol(models / name, "--data", data, "--out", tmp_path / name).exit_code == 0
    assert sibol(models / "other", "--data", data, "--out", tmp_path / "paired", "--baseline", models / "model").exit_code == 0
    stored = [tmp_path / name / "results.json" for name in ("model", "other")]
    expected = read(tmp_path / "paired")[0]["baseline"]["difference"]["bits_per_byte"]
    summary = write_report(stored, tmp_path / "report")
    suite = summary["comparison"]["suites"][0]
    (change,) = suite["comparisons"]
    assert (change["from"], change["to"], suite["items"]) == ("model", "other", len(TEXTS))
    assert {key: change["difference"][key] for key in expected} == pytest.approx(expected)
    paired = write_report([tmp_path / "paired"], tmp_path / "report", overwrite=True)  # a baseline in the same file: the same comparison
    assert paired["comparison"]["suites"][0]["comparisons"][0]["difference"] == pytest.approx(change["difference"])
    domains = read(tmp_path / "paired")[0]["domains"]
    found = paired["comparison"]["suites"][0]["arms"][1]["categories"]
    assert {name: entry["value"] for name, entry in found.items()} == pytest.approx(
        {name: entry["bits_per_byte"]["value"] for name, entry in domains.items()}
    )
    with (tmp_path / "other" / "per_document.jsonl").open("a") as handle:
        handle.write("\n")
    with pytest.raises(DataError, match=r"per_document\.jsonl was altered"):
        write_report(stored, tmp_path / "report", overwrite=True)
