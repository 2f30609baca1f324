"""Gemma 3's configs and files, as they are published: fields left to transformers' defaults, and text models inside of multimodal ones."""

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
from nemo_ext.models.family import FAMILIES, family_of, read_model_config
from nemo_ext.models.gemma3.presets import DEFAULTS, normal_form
from tests.support.tiny_models import GEMMA3

RULES = family_of(GEMMA3).build_mapping(GEMMA3)
LAYERS = GEMMA3["num_hidden_layers"]
MULTIMODAL = {"model_type": "gemma3", "text_config": {**GEMMA3, "architectures": None}, "vision_config": {"hidden_size": 1152}}
VISION = {
    "vision_tower.vision_model.embeddings.patch_embedding.weight": torch.ones(2, 3),
    "multi_modal_projector.norm.weight": torch.ones(4),
}
STYLES = {  # the transformers that wrote the file -> names of the text model and of the vision parts
    "4": ("language_model.{}", "{}"),
    "5": ("model.language_model.{}", "model.{}"),
}


def text_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(shape, generator=generator) for name, shape in Table(RULES, LAYERS).hf_shapes.items()}


def write(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Path:
    folder.mkdir()
    write_json(folder / "config.json", config)
    save_file(tensors, folder / "model.safetensors")
    return folder


def multimodal_tensors(style: str) -> dict[str, torch.Tensor]:
    text, vision = STYLES[style]
    names = {name: text.format(name.removeprefix("model.") if style == "5" else name) for name in text_tensors()}
    return {**{names[name]: tensor for name, tensor in text_tensors().items()}, **{vision.format(n): t for n, t in VISION.items()}}


@pytest.mark.parametrize("style", STYLES)
def test_the_text_part_of_a_multimodal_checkpoint_is_the_text_model(style: str, tmp_path: Path):
    alone = write(tmp_path / "alone", text_tensors(), GEMMA3)
    whole = write(tmp_path / "whole", multimodal_tensors(style), MULTIMODAL)
    assert read_model_config(whole) == read_model_config(alone)
    source = HuggingFaceWeights(whole, RULES)
    assert source.name.endswith("without multi_modal_projector (1 tensors), vision_tower (1 tensors)")
    assert source_fingerprint(RULES, LAYERS, source) == source_fingerprint(RULES, LAYERS, HuggingFaceWeights(alone, RULES))


def test_a_part_that_nobody_knows_and_a_missing_tensor_are_refused(tmp_path: Path):
    tensors = {**multimodal_tensors("4"), "audio_tower.weight": torch.ones(2)}
    del tensors["language_model.model.layers.2.self_attn.q_norm.weight"]
    folder = write(tmp_path / "whole", tensors, MULTIMODAL)
    with pytest.raises(ConversionError, match=r"missing 'model.layers.2.self_attn.q_norm.weight'.*unknown 'audio_tower.weight'"):
        HuggingFaceWeights(folder, RULES)


def test_what_a_config_leaves_out_is_what_transformers_takes():
    from transformers import Gemma3TextConfig

    theirs = Gemma3TextConfig().to_dict()
    ours = normal_form({"model_type": "gemma3_text"})
    assert {name: theirs[name] for name in ours} == ours
    assert set(DEFAULTS) - {"sliding_window_pattern"} <= set(ours)


@pytest.mark.parametrize("kinds", [{}, {"sliding_window_pattern": 4}, {"layer_types": ["full_attention"] * 7}])
def test_the_kinds_of_layers_are_those_of_transformers(kinds: dict[str, Any]):
    from transformers import Gemma3TextConfig

    config = {"num_hidden_layers": 7, **kinds}
    assert normal_form(config)["layer_types"] == Gemma3TextConfig(**config).layer_types


def test_a_published_multimodal_config_is_complete():
    # https://huggingface.co/google/gemma-3-4b-pt/blob/main/config.json, the part that concerns text
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    text["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}  # type: ignore[assignment]
    config = normal_form({"model_type": "gemma3", "text_config": {**text, "model_type": "gemma3_text"}})
    FAMILIES.get("gemma3").check(config)
    assert config == normal_form(FAMILIES.get("gemma3").presets["4b"])
