"""Hugging Face -> Megatron checkpoint of any layout -> Hugging Face gives back the same bits, and slices keep what they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForMaskedLM, BertForPreTraining

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.export import export_checkpoint
from nemo_ext.convert.slicing import slice_layers
from tests.support.masked_batches import hugging_face_arguments, masked_batch
from tests.support.megatron_checkpoints import save_hf_weights
from tests.support.ranks import run_ranks
from tests.support.tiny_models import BERT, MODERNBERT, write_random_hf_model

WITH_POOLER = {**BERT, "architectures": ["BertForPreTraining"]}
MODELS = {"bert": (BERT, 2, 1), "bert with pooler": (WITH_POOLER, 1, 2), "modernbert": (MODERNBERT, 2, 2)}


def write_model(folder: Path, hf_config: dict[str, Any]) -> None:
    if hf_config is not WITH_POOLER:
        write_random_hf_model(folder, hf_config)
        return
    torch.manual_seed(0)
    BertForPreTraining(AutoConfig.for_model(**hf_config)).save_pretrained(folder)


@pytest.mark.parametrize("name", MODELS)
def test_an_export_holds_the_bits_that_were_imported_and_loads_as_a_masked_language_model(name: str, tmp_path: Path):
    hf_config, tp, pp = MODELS[name]
    source, weights, exported = tmp_path / "source", tmp_path / "weights", tmp_path / "exported"
    write_model(source, hf_config)
    run_ranks(tp * pp, save_hf_weights, str(source), str(weights), hf_config, tp, pp)
    report = export_checkpoint(weights, hf_config, source, exported)
    before, after = load_file(source / "model.safetensors"), load_file(exported / "model.safetensors")
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert report.verification is not None and report.verification["max_abs_difference"] < 1e-5
    assert report.verification["tokens"] > hf_config.get("local_attention", 0)
    batch = hugging_face_arguments(masked_batch(hf_config))
    first, second = (AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager") for folder in (source, exported))
    assert type(second).__name__ == {"bert": "BertForMaskedLM", "modernbert": "ModernBertForMaskedLM"}[hf_config["model_type"]]
    assert torch.equal(first(**batch).logits, second(**batch).logits)


def logits_without_other_layers(model: Any, layers: list[int], batch: dict[str, Any]) -> torch.Tensor:
    """Logits of a transformers model whose other layers are taken out by hand, each kept one with its window and rotary base."""
    holder, name = (model.bert.encoder, "layer") if hasattr(model, "bert") else (model.model, "layers")
    setattr(holder, name, torch.nn.ModuleList(getattr(holder, name)[layer] for layer in layers))
    return model(**batch).logits


@pytest.mark.parametrize(
    ("hf_config", "layers"), [(BERT, [1, 3]), (MODERNBERT, [0, 1, 2]), (MODERNBERT, [0, 3]), (MODERNBERT, [0, 2, 3])], ids=str
)
def test_a_slice_computes_what_the_source_computes_without_the_other_layers(hf_config: dict[str, Any], layers: list[int], tmp_path: Path):
    model = write_random_hf_model(tmp_path / "source", hf_config)
    slice_layers(tmp_path / "source", tmp_path / "slice", layers)
    batch = hugging_face_arguments(masked_batch(hf_config))
    expected = logits_without_other_layers(model, layers, batch)
    sliced = AutoModelForMaskedLM.from_pretrained(tmp_path / "slice", attn_implementation="eager")
    real = batch["attention_mask"]
    assert torch.equal(sliced(**batch).logits[real], expected[real])
    period = json.loads((tmp_path / "slice" / "config.json").read_text()).get("global_attn_every_n_layers")
    assert period == ({(0, 1, 2): 3, (0, 3): 1, (0, 2, 3): 2}[tuple(layers)] if hf_config is MODERNBERT else None)


@pytest.mark.parametrize(("layers", "message"), [([1, 2], "every n-th layer"), ([3], "Layer 3 cannot become layer 0")])
def test_a_slice_that_modernberts_config_cannot_describe_is_refused(layers: list[int], message: str, tmp_path: Path):
    write_random_hf_model(tmp_path / "source", MODERNBERT)
    with pytest.raises(ConversionError, match=message):
        slice_layers(tmp_path / "source", tmp_path / "slice", layers)
    assert not (tmp_path / "slice").exists()
