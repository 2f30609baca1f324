"""GPT-2 checkpoints as they are found: with and without `transformer.`, with causal masks, tied heads, missing and extra tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_ext.common.errors import ConfigError, ConversionError
from nemo_ext.common.hf_config import own_name, with_common_names
from nemo_ext.config import RunConfig, check_architecture
from nemo_ext.convert.rules import Table
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.convert.staging import staged_folder
from nemo_ext.convert.stream import stream_weights
from nemo_ext.models.family import FAMILIES
from tests.support.tiny_models import GPT2

FAMILY = FAMILIES.get("gpt2")
RULES = FAMILY.build_mapping(GPT2)
TABLE = Table(RULES, GPT2["n_layer"])


def random_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in TABLE.hf_shapes.items()}


def converted(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Write `tensors` to a folder and return what comes back through the mapping table."""
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    save_file(tensors, folder / "in" / "model.safetensors")
    with staged_folder(folder / "out", {}) as staged:
        stream_weights(TABLE, HuggingFaceWeights(folder / "in", RULES, GPT2["n_layer"]), staged, torch.float32)
    return load_file(folder / "out" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_names_come_back_bit_exact(tmp_path: Path):
    assert same(converted(tmp_path, random_tensors()), random_tensors())


def test_a_file_without_the_prefix_and_with_causal_masks_is_the_same_model(tmp_path: Path):
    bare = {name.removeprefix("transformer."): tensor for name, tensor in random_tensors().items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 72, 72, dtype=torch.bool).tril() for layer in range(GPT2["n_layer"])}
    assert same(converted(tmp_path, {**bare, **masks, "h.0.attn.masked_bias": torch.tensor(-1e4)}), random_tensors())


def test_a_head_saved_although_it_is_tied_must_equal_the_embedding(tmp_path: Path):
    tensors = random_tensors()
    head = tensors["transformer.wte.weight"].clone()
    assert same(converted(tmp_path, {**tensors, "lm_head.weight": head}), tensors)
    (tmp_path / "other").mkdir()
    with pytest.raises(ConversionError, match=r"ties lm_head.weight to transformer.wte.weight"):
        converted(tmp_path / "other", {**tensors, "lm_head.weight": head + 1})


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_missing_and_extra_tensors_are_listed(tmp_path: Path, prefix: str):
    tensors = {prefix + name.removeprefix("transformer."): tensor for name, tensor in random_tensors().items()}
    del tensors[prefix + "h.1.mlp.c_fc.bias"]
    tensors[prefix + "h.4.ln_1.weight"] = torch.ones(96)
    with pytest.raises(ConversionError, match=r"2 problem.*missing 'transformer.h.1.mlp.c_fc.bias'.*unknown 'transformer.h.4.ln_1.weight'"):
        converted(tmp_path, tensors)


def test_query_key_and_value_side_by_side_become_rows_head_by_head(tmp_path: Path):
    rule = next(rule for rule in RULES if rule.key.endswith("linear_qkv.bias"))
    # Six heads of 16: Megatron's first 48 rows are the first head's query, key and value, which stand 96 apart in c_attn.
    assert [(block.hf_row, block.rows) for block in rule.blocks(0, 96, 0)] == [(0, 16), (96, 16), (192, 16), (16, 16), (112, 16), (208, 16)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
        ("activation_function", "silu"),
        ("embd_pdrop", 0.25),
        ("n_head", 5),
        ("n_positions", None),
    ],
)
def test_what_megatron_would_compute_otherwise_is_refused(field: str, value: Any):
    with pytest.raises(ConversionError, match=field) as caught:
        FAMILY.check({**GPT2, field: value})
    assert str(value) in str(caught.value)


def test_sizes_are_known_by_their_common_names():
    sizes = with_common_names(FAMILY.hf_config("medium", {}))
    assert (sizes["num_hidden_layers"], sizes["num_attention_heads"], sizes["hidden_size"]) == (24, 16, 1024)
    assert (sizes["intermediate_size"], sizes["max_position_embeddings"]) == (4096, 1024)
    assert own_name(GPT2, "max_position_embeddings") == "n_positions"
    assert own_name({"max_position_embeddings": 7}, "max_position_embeddings") == "max_position_embeddings"


@pytest.mark.parametrize(
    ("tp", "pp", "seq_length", "message"), [(4, 1, 64, "6 attention heads"), (1, 3, 64, "4 layers"), (1, 1, 73, "=72")]
)
def test_a_layout_or_length_that_does_not_fit_is_refused_before_ranks_start(tp: int, pp: int, seq_length: int, message: str):
    config = RunConfig()
    config.parallel.tp, config.parallel.pp, config.train.seq_length = tp, pp, seq_length
    with pytest.raises(ConfigError, match=message):
        check_architecture(config, GPT2)
