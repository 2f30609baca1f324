"""Encoder checkpoints as they are found: old norm names, copies of tied weights, heads that nobody trains, missing and extra tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nemo_ext.common.errors import ConversionError
from nemo_ext.common.files import write_json
from nemo_ext.convert.load import source_fingerprint
from nemo_ext.convert.rules import Table
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.models.bert import presets as bert
from nemo_ext.models.family import family_of
from nemo_ext.models.modernbert import presets as modernbert
from tests.support.tiny_models import BERT, MODERNBERT

WITH_POOLER = {**BERT, "architectures": ["BertForPreTraining"]}
EMBEDDINGS = {"bert": "bert.embeddings.word_embeddings.weight", "modernbert": "model.embeddings.tok_embeddings.weight"}


def tensors_of(hf_config: dict[str, Any]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    table = Table(family_of(hf_config).build_mapping(hf_config), hf_config["num_hidden_layers"])
    return {name: torch.randn(shape, generator=generator) for name, shape in table.hf_shapes.items()}


def read(folder: Path, tensors: dict[str, torch.Tensor], hf_config: dict[str, Any]) -> tuple[str, str]:
    """Name and fingerprint of the weights that are read from a file with these tensors."""
    folder.mkdir()
    write_json(folder / "config.json", hf_config)
    save_file(tensors, folder / "model.safetensors")
    rules = family_of(hf_config).build_mapping(hf_config)
    source = HuggingFaceWeights(folder, rules)
    return source.name, source_fingerprint(rules, hf_config["num_hidden_layers"], source)


def test_norms_under_their_old_names_are_the_same_weights(tmp_path: Path):
    tensors = tensors_of(BERT)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in tensors.items()
    }
    assert set(old) != set(tensors)
    assert read(tmp_path / "old", old, BERT)[1] == read(tmp_path / "new", tensors, BERT)[1]


def test_a_pooler_is_kept_with_the_architecture_that_has_one_and_else_left_out_by_name(tmp_path: Path):
    tensors = tensors_of(WITH_POOLER)
    spare = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "cls.seq_relationship.weight", "cls.seq_relationship.bias"}
    assert spare == set(tensors) - set(tensors_of(BERT))
    name, _ = read(tmp_path / "masked", tensors, BERT)
    assert name.endswith("masked without next-sentence head (2 tensors), pooler (2 tensors)")
    assert read(tmp_path / "whole", tensors, WITH_POOLER)[0] == str(tmp_path / "whole")
    with pytest.raises(ConversionError, match=r"missing 'bert.pooler.dense.weight' \[72, 72\]"):
        read(tmp_path / "lost", {key: tensor for key, tensor in tensors.items() if "pooler" not in key}, WITH_POOLER)


COPIES = [
    (BERT, "cls.predictions.decoder.weight", EMBEDDINGS["bert"]),
    (BERT, "cls.predictions.decoder.bias", "cls.predictions.bias"),
    (MODERNBERT, "decoder.weight", EMBEDDINGS["modernbert"]),
]


@pytest.mark.parametrize(("hf_config", "copy", "original"), COPIES)
def test_a_copy_of_a_tied_tensor_must_equal_it(hf_config: dict[str, Any], copy: str, original: str, tmp_path: Path):
    tensors = tensors_of(hf_config)
    equal = read(tmp_path / "equal", {**tensors, copy: tensors[original].clone()}, hf_config)
    assert equal[1] == read(tmp_path / "without", tensors, hf_config)[1]
    with pytest.raises(ConversionError, match=f"ties {copy} to {original}, but the file holds different values"):
        read(tmp_path / "other", {**tensors, copy: tensors[original] + 1}, hf_config)


@pytest.mark.parametrize(
    ("hf_config", "lost", "extra"),
    [
        (BERT, "cls.predictions.bias", "bert.encoder.layer.4.output.dense.bias"),
        (MODERNBERT, "decoder.bias", "model.layers.0.attn_norm.weight"),
    ],
)
def test_a_missing_and_an_extra_tensor_are_named(hf_config: dict[str, Any], lost: str, extra: str, tmp_path: Path):
    tensors = {**tensors_of(hf_config), extra: torch.zeros(2)}
    del tensors[lost]
    with pytest.raises(ConversionError, match=rf"2 problem\(s\)\): missing '{lost}' \[203\]; unknown '{extra}'"):
        read(tmp_path / "folder", tensors, hf_config)


def test_positions_that_old_files_hold_are_no_weights(tmp_path: Path):
    tensors = tensors_of(BERT)
    with_positions = {**tensors, "bert.embeddings.position_ids": torch.arange(64)[None]}
    assert read(tmp_path / "with", with_positions, BERT)[1] == read(tmp_path / "without", tensors, BERT)[1]


def test_what_a_config_leaves_out_is_what_transformers_takes():
    from transformers import BertConfig, ModernBertConfig

    for theirs, ours in ((BertConfig(), bert.DEFAULTS), (ModernBertConfig(), modernbert.DEFAULTS)):
        assert {name: theirs.to_dict()[name] for name in ours} == ours
