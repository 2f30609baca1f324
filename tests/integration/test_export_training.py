"""What a real training run leaves is exported: weights, tokenizer and where it all came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nemo_ext.common.dataset import open_dataset
from nemo_ext.config import ModelConfig
from nemo_ext.convert.export import export_run
from nemo_ext.convert.reader import SafetensorsReader
from nemo_ext.convert.stream import write_hf_weights
from nemo_ext.models.family import family_of
from nemo_ext.tokenizers import load
from tests.support.megatron_checkpoints import seeded_weights
from tests.support.tiny_models import GPT2, random_hf_model
from tests.support.training import small_run, train_on_ranks


@pytest.mark.parametrize(("ranks", "settings"), [(2, ["parallel.tp=2"]), (1, ["train.precision=bf16-mixed"])], ids=["tp2", "bf16"])
def test_trained_run_becomes_a_model_that_transformers_loads(ranks: int, settings: list[str], dataset: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = small_run(tmp_path / "run", dataset, "train.max_steps=3", "schedule.warmup_steps=1", *settings)
    train_on_ranks(ranks, config)
    report = export_run(tmp_path / "run", tmp_path / "out")
    assert report.step == 3
    assert report.dtype == ("bfloat16" if config.train.precision == "bf16-mixed" else "float32")
    assert report.verification is not None
    assert report.verification["max_abs_difference"] < 1e-5
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["dataset"]["fingerprint"] == open_dataset(dataset).fingerprint
    assert record["source"]["entries_left_out"]["optimizer"] > 0
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path / "out"), AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = tokenizer("The assignment statement", return_tensors="pt")
    assert model.generate(**tokens, max_new_tokens=2).shape[1] == tokens["input_ids"].shape[1] + 2


def test_a_gpt2_with_more_positions_than_the_run_needs_is_continued_in_bf16_and_exported_whole(dataset: Path, tmp_path: Path) -> None:
    from transformers import GPT2Model

    data = open_dataset(dataset)
    hf_config = {**GPT2, "vocab_size": data.vocab_size, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "attn_pdrop": 0.1}
    # Saved from the bare decoder, hence without `transformer.` before its names, as openai-community/gpt2 is.
    GPT2Model(random_hf_model(hf_config).config).save_pretrained(tmp_path / "model")
    config_file = tmp_path / "model" / "config.json"
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "architectures": ["GPT2LMHeadModel"]}))
    load(data.tokenizer_dir).copy(tmp_path / "model")
    settings = ["train.max_steps=3", "schedule.warmup_steps=1", "train.precision=bf16-mixed", "parallel.tp=2"]
    config = small_run(tmp_path / "run", dataset, *settings)
    train_on_ranks(2, replace(config, model=ModelConfig(init_from=str(tmp_path / "model"))))
    report = export_run(tmp_path / "run", tmp_path / "out")
    assert report.verification is not None
    assert report.verification["max_abs_difference"] < 1e-5
    assert SafetensorsReader(tmp_path / "out").stored("transformer.wpe.weight").shape == (GPT2["n_positions"], GPT2["n_embd"])


def test_baseline_is_the_model_that_training_started_from(dataset: Path, tmp_path: Path) -> None:
    # With a learning rate of zero nothing moves, so the last checkpoint still holds the weights of step 0.
    still = ["train.max_steps=2", "schedule.warmup_steps=0", "optimizer.learning_rate=0", "parallel.pp=2"]
    config = small_run(tmp_path / "run", dataset, *still)
    metrics = train_on_ranks(2, config)
    hf_config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    rules = family_of(hf_config).build_mapping(hf_config)
    written = write_hf_weights(hf_config, rules, seeded_weights(config.train.seed, hf_config), tmp_path / "untrained")
    assert metrics[0]["weights"]["fingerprint"] == written.fingerprint
    assert export_run(tmp_path / "run", tmp_path / "out", verify=False).fingerprint == written.fingerprint
    baseline, exported = SafetensorsReader(tmp_path / "untrained"), SafetensorsReader(tmp_path / "out")
    assert set(baseline.tensors) == set(exported.tensors)
    assert all(torch.equal(baseline.read(name), exported.read(name)) for name in baseline.tensors)
