"""Hugging Face -> Megatron ranks -> distributed checkpoint -> Hugging Face: the same bits, proven by logits, or nothing at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from nemo_ext.common.errors import CheckpointError, ConversionError, OutputExistsError
from nemo_ext.common.files import sha256_of_file
from nemo_ext.config import RunConfig, to_yaml
from nemo_ext.convert.export import export_checkpoint, export_run
from nemo_ext.convert.reader import SafetensorsReader
from recipes.cli.export import export
from tests.support.megatron_checkpoints import save_hf_weights
from tests.support.ranks import run_ranks
from tests.support.tiny_models import GEMMA3, GPT2, LLAMA, QWEN2, QWEN3, random_hf_model, token_batch

SMALL: dict[str, Any] = {**QWEN2, "num_hidden_layers": 4, "bos_token_id": 1, "eos_token_id": 2}
TIED = {**SMALL, "tie_word_embeddings": True}


def write_model(folder: Path, hf_config: dict[str, Any], dtype: str = "float32") -> None:
    """A random model with a tokenizer, as Hugging Face writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    random_hf_model(hf_config).to(getattr(torch, dtype)).save_pretrained(folder)
    words = {f"w{number}": number for number in range(3, hf_config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, **words}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", model_input_names=names).save_pretrained(folder)


def checkpoint(folder: Path, hf_config: dict[str, Any], tp: int = 1, pp: int = 1, dtype: str = "float32", apart: bool = False) -> Path:
    """The model of `folder` as a distributed checkpoint, written by tp x pp ranks."""
    weights = folder.parent / "weights"
    run_ranks(tp * pp, save_hf_weights, str(folder), str(weights), hf_config, tp, pp, dtype, apart)
    return weights


def same_bits(one: Path, other: Path) -> bool:
    first, second = SafetensorsReader(one), SafetensorsReader(other)
    assert set(first.tensors) == set(second.tensors)
    return all(
        first.stored(name).dtype == second.stored(name).dtype and torch.equal(first.read(name), second.read(name)) for name in first.tensors
    )


@pytest.mark.parametrize(
    ("hf_config", "tp", "pp", "dtype", "apart"),
    [
        (SMALL, 1, 1, "float32", False),
        (TIED, 2, 1, "float32", False),
        (SMALL, 2, 1, "bfloat16", True),
        (TIED, 1, 2, "bfloat16", False),
        (SMALL, 1, 2, "float32", True),
        (QWEN3, 2, 1, "bfloat16", False),
        (GEMMA3, 1, 2, "float32", False),
        ({**GEMMA3, "num_key_value_heads": 1}, 2, 1, "bfloat16", True),
        ({**GEMMA3, "num_key_value_heads": 1}, 4, 1, "float32", False),
        (SMALL, 4, 1, "float32", False),
        (LLAMA, 1, 2, "bfloat16", False),
        (GPT2, 2, 1, "float32", False),
        (GPT2, 1, 2, "bfloat16", True),
    ],
)
def test_round_trip_is_bit_exact_and_logits_agree(tmp_path, hf_config, tp, pp, dtype, apart):
    source = tmp_path / "hf"
    write_model(source, hf_config, dtype)
    weights = checkpoint(source, hf_config, tp, pp, dtype, apart)
    report = export_checkpoint(weights, json.loads((source / "config.json").read_text()), source, tmp_path / "out")
    assert same_bits(source, tmp_path / "out")
    assert report.dtype == dtype
    assert report.verification is not None
    assert report.verification["max_abs_difference"] < 1e-5
    assert report.verification["argmax_agreement"] == 1.0


def test_exported_folder_is_loaded_by_transformers_without_help(tmp_path):
    source, out = tmp_path / "hf", tmp_path / "out"
    write_model(source, SMALL)
    weights = checkpoint(source, SMALL)
    report = export_checkpoint(weights, SMALL, source, out, max_shard_bytes=200_000, verify=False)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    assert report.verification is None
    original, exported = (AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager") for folder in (source, out))
    tokens = token_batch(SMALL)
    assert torch.equal(original(tokens).logits, exported(tokens).logits)
    assert exported.config.vocab_size == SMALL["vocab_size"]
    assert exported.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(out)
    generated = exported.generate(**tokenizer("w5 w77 w202", return_tensors="pt"), max_new_tokens=3, do_sample=False, pad_token_id=2)
    assert generated[0, :3].tolist() == [5, 77, 202]


def test_export_to_bf16_rounds_once_and_is_verified_at_that_precision(tmp_path):
    source = tmp_path / "hf"
    write_model(source, SMALL)
    report = export_checkpoint(checkpoint(source, SMALL), SMALL, source, tmp_path / "out", dtype="bf16")
    before, after = SafetensorsReader(source), SafetensorsReader(tmp_path / "out")
    assert all(torch.equal(before.read(name).bfloat16(), after.read(name)) for name in before.tensors)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert report.verification is not None
    assert report.verification["weights_rounded_to"] == "bfloat16"


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory) -> tuple[Path, Path]:
    """A model folder and its checkpoint, for tests that only read them."""
    folder = tmp_path_factory.mktemp("source")
    write_model(folder / "hf", SMALL)
    return folder / "hf", checkpoint(folder / "hf", SMALL)


def test_config_that_is_not_the_models_fails_the_comparison_and_nothing_is_published(exported_once, tmp_path):
    source, weights = exported_once
    export_checkpoint(weights, SMALL, source, tmp_path / "right")
    # A checkpoint of one model and the files of another: the export is consistent in itself, so only the logits can tell.
    from nemo_ext.convert.verify import verify

    other = random_hf_model(SMALL, seed=9)
    other.save_pretrained(tmp_path / "right")
    with pytest.raises(ConversionError, match=r"largest difference \d.*, allowed 0.0001, same most likely token at .* of 128 positions"):
        verify(weights, tmp_path / "right", SMALL, "float32", tmp_path / "verify.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_word_embeddings": True}, "'output_layer.weight' is not in the mapping table"),
        ({"num_hidden_layers": 3}, r"has shape \[4, .*expected \[3, "),
        ({"vocab_size": 300}, r"'embedding.word_embeddings.weight' has shape \[256, 64\], expected \[384, 64\]"),
        ({"hidden_act": "gelu"}, "could not be verified.*hidden_act='gelu'"),
    ],
)
def test_config_that_does_not_fit_is_refused_and_nothing_is_published(exported_once, tmp_path, change, message):
    source, weights = exported_once
    with pytest.raises(ConversionError, match=message):
        export_checkpoint(weights, {**SMALL, **change}, source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_that_megatron_cannot_load_is_not_published(exported_once, tmp_path):
    source, weights = exported_once
    shutil.copytree(weights, tmp_path / "weights")
    (tmp_path / "weights" / "metadata.json").unlink()
    with pytest.raises(ConversionError, match=r"could not be verified, and nothing was published: .* is not a distributed checkpoint"):
        export_checkpoint(tmp_path / "weights", SMALL, source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def write_run(run: Path, source: Path, weights: Path, steps: tuple[int, ...]) -> None:
    """A run folder around a checkpoint, as training leaves it."""
    run.mkdir()
    config = RunConfig(name="pilot")
    config.data.path = "data/filipino"
    (run / "run.yaml").write_text(to_yaml(config))
    (run / "model").symlink_to(source)
    for step in steps:
        folder = run / "checkpoints" / f"step_{step:07d}"
        folder.mkdir(parents=True)
        (folder / "weights").symlink_to(weights)
        state = {"schema": "sibol.checkpoint/1", "step": step, "dataset_fingerprint": "d4ta"}
        (folder / "state.json").write_text(json.dumps(state))
    (run / "checkpoints" / ".step_0000999.partial").mkdir(parents=True)


def run_command(*arguments: str) -> Any:
    application = typer.Typer()
    application.command()(export)
    return CliRunner().invoke(application, list(arguments))


def test_run_is_exported_from_its_newest_checkpoint_with_its_provenance(exported_once, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    write_run(run, *exported_once, steps=(50, 100))
    result = run_command(str(run), str(out), "--max-shard", "1MB")
    assert result.exit_code == 0, result.output
    assert "Exported step 100: 162,240 parameters, float32" in result.stdout
    assert "Verified: largest difference" in result.stdout
    record = json.loads((out / "provenance.json").read_text())
    assert record["schema"] == "sibol.provenance/1"
    assert record["source"]["step"] == 100
    assert record["dataset"] == {"path": "data/filipino", "fingerprint": "d4ta"}
    assert record["run"]["run_yaml_sha256"] == sha256_of_file(run / "run.yaml")
    assert record["weights"]["fingerprint"] in result.stdout
    card = (out / "README.md").read_text()
    assert "# pilot" in card
    assert "trained steps: 100" in card
    assert json.loads((out / "verify.json").read_text())["max_abs_difference"] < 1e-5


def test_step_can_be_chosen_and_must_be_there(exported_once, tmp_path):
    write_run(tmp_path / "run", *exported_once, steps=(50, 100))
    assert export_run(tmp_path / "run", tmp_path / "out", step=50, verify=False).step == 50
    with pytest.raises(CheckpointError, match=r"no complete checkpoint of step 999. It has: 50, 100"):
        export_run(tmp_path / "run", tmp_path / "other", step=999)


def test_run_without_a_complete_checkpoint_is_refused(exported_once, tmp_path):
    write_run(tmp_path / "run", *exported_once, steps=())
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        export_run(tmp_path / "run", tmp_path / "out")


def test_existing_output_is_kept_unless_overwriting_is_asked_for(exported_once, tmp_path):
    write_run(tmp_path / "run", *exported_once, steps=(5,))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_run(tmp_path / "run", tmp_path / "out", verify=False)
    assert (tmp_path / "out" / "precious").read_text() == "kept"
    result = run_command(str(tmp_path / "run"), str(tmp_path / "out"), "--overwrite", "--no-verify", "--dtype", "bf16")
    assert result.exit_code == 0, result.output
    assert "Not verified" in result.stdout
    assert not (tmp_path / "out" / "precious").exists()
