"""Qwen2's sizes are the published ones, its fields are those of transformers, and what Megatron cannot express is refused."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.errors import ConfigError, ConversionError
from nemo_ext.models.family import FAMILIES, family_of, padded_vocab_size

FAMILY = FAMILIES.get("qwen2")
# Parameters in billions, as the model cards at huggingface.co/Qwen say.
PUBLISHED = {"0.5b": 0.49, "1.5b": 1.54, "3b": 3.09, "7b": 7.61, "14b": 14.7, "32b": 32.5, "72b": 72.7, "qwen1.5-72b": 72.0}
OURS = {"tiny": 1.3e6, "mini": 9.9e6, "100m": 100e6}


def parameters(config: dict[str, Any]) -> int:
    hidden, layers, feed_forward = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * keys + hidden + 2 * keys  # with the biases of query, key and value
    embeddings = config["vocab_size"] * hidden * (1 if config["tie_word_embeddings"] else 2)
    return embeddings + layers * (attention + 3 * hidden * feed_forward + 2 * hidden) + hidden


def transformers_fields() -> set[str]:
    """Parameter names of Qwen2Config, read from its source: importing transformers takes seconds."""
    folder = importlib.util.find_spec("transformers").submodule_search_locations[0]  # type: ignore[union-attr, index]
    tree = ast.parse(Path(folder, "models/qwen2/configuration_qwen2.py").read_text())
    (constructor,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return {argument.arg for argument in constructor.args.args} - {"self"}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_published_size_has_its_published_number_of_parameters(preset: str):
    assert parameters(FAMILY.hf_config(preset, {})) / 1e9 == pytest.approx(PUBLISHED[preset], rel=0.01)


@pytest.mark.parametrize("preset", OURS)
def test_our_own_sizes_are_what_their_names_promise_and_split_in_two(preset: str):
    config = FAMILY.hf_config(preset, {})
    assert parameters(config) == pytest.approx(OURS[preset], rel=0.02)
    assert not any(config[name] % 2 for name in ("num_attention_heads", "num_key_value_heads", "num_hidden_layers", "intermediate_size"))


@pytest.mark.parametrize("preset", FAMILY.presets)
def test_every_preset_can_be_expressed_and_is_read_back_as_qwen2(preset: str):
    config = FAMILY.hf_config(preset, {})
    FAMILY.check(config)
    assert family_of(config) is FAMILY


def test_every_field_of_transformers_can_be_overridden():
    missing = transformers_fields() - set(FAMILY.presets["tiny"]) - FAMILY.free_fields
    assert not missing, f"fields of Qwen2Config that model.overrides does not know: {missing}"


def test_a_misspelled_override_names_the_field_that_was_meant():
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        FAMILY.hf_config("tiny", {"num_hiden_layers": 2})


def test_overrides_do_not_change_the_preset():
    assert FAMILY.hf_config("tiny", {"num_hidden_layers": 2}, vocab_size=500)["vocab_size"] == 500
    assert FAMILY.presets["tiny"]["num_hidden_layers"] == 4 and FAMILY.presets["tiny"]["vocab_size"] == 4096


@pytest.mark.parametrize(
    "field, value",
    [
        ("use_sliding_window", True),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("layer_types", ["full_attention", "sliding_attention", "full_attention", "full_attention"]),
        ("hidden_act", "gelu"),
        ("model_type", "llama"),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"quant_method": "gptq"}),
        ("hidden_size", None),
        ("num_hidden_layers", "4"),
        ("vocab_size", 0),
        ("num_key_value_heads", 3),
    ],
)
def test_what_megatron_would_compute_differently_is_refused_by_name_and_value(field: str, value: Any):
    with pytest.raises(ConversionError, match=field) as caught:
        FAMILY.check({**FAMILY.presets["tiny"], field: value})
    assert str(value) in str(caught.value)


def test_a_head_size_that_does_not_divide_is_refused_unless_it_is_given():
    config = {**FAMILY.presets["tiny"], "hidden_size": 130}
    with pytest.raises(ConversionError, match="hidden_size=130"):
        FAMILY.check(config)
    FAMILY.check({**config, "head_dim": 32})


@pytest.mark.parametrize(
    "harmless", [{"rope_scaling": {"rope_type": "default"}}, {"layer_types": ["full_attention"] * 4}, {"sliding_window": 32768}]
)
def test_fields_that_change_nothing_are_accepted(harmless: dict[str, Any]):
    FAMILY.check({**FAMILY.presets["tiny"], **harmless})


@pytest.mark.parametrize("vocab_size, padded", [(1, 128), (128, 128), (203, 256), (152064, 152064)])
def test_the_vocabulary_is_padded_to_128_whatever_the_layout(vocab_size: int, padded: int):
    assert padded_vocab_size(vocab_size) == padded
