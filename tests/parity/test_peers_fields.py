"""Exports hold what vLLM and llama.cpp read: every config field by name, every tensor, and the values that those programs assume.

The tables are read off their sources, which need a GPU or a compiler to run:
  vllm-project/vllm, vllm/model_executor/models/{gemma3,gpt2,llama,qwen2,qwen3}.py: attributes of `config`, assertions, load_weights;
      vllm/model_executor/layers/vocab_parallel_embedding.py: as many rows as config.vocab_size
  ggml-org/llama.cpp, conversion/{base,gemma,gpt2,llama,qwen}.py: `hparams[...]` and `find_hparam`; gguf-py/gguf/tensor_mapping.py;
      src/models/gemma3.cpp and the hparams of its architecture: what is fixed there instead of read
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.files import read_json
from nemo_ext.convert.reader import SafetensorsReader
from nemo_ext.convert.rules import layer_count
from nemo_ext.convert.stream import write_hf_weights
from nemo_ext.models.family import FAMILIES, family_of
from tests.support.megatron_checkpoints import seeded_weights
from tests.support.tiny_language_models import train_tokenizer
from tests.support.tiny_models import GEMMA3, GPT2, LLAMA, QWEN2, QWEN3

BOTH = ("architectures", "model_type", "torch_dtype", "vocab_size")
LLAMA_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("max_position_embeddings", "rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings"),
)
FIELDS: dict[str, tuple[str, ...]] = {
    "LlamaForCausalLM": LLAMA_FIELDS,
    "Qwen2ForCausalLM": LLAMA_FIELDS,
    "Qwen3ForCausalLM": (*LLAMA_FIELDS, "head_dim"),
    "Gemma3ForCausalLM": (
        *(name for name in LLAMA_FIELDS if name != "hidden_act"),
        *("head_dim", "hidden_activation", "query_pre_attn_scalar", "sliding_window", "layer_types", "rope_local_base_freq"),
    ),
    "GPT2LMHeadModel": ("n_layer", "n_ctx", "n_positions", "n_embd", "n_head", "layer_norm_epsilon", "activation_function"),
}
LLAMA_LAYER = {
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
    *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
}
HEAD_NORMS = {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}
LAYER_TENSORS: dict[str, set[str]] = {
    "LlamaForCausalLM": LLAMA_LAYER,
    "Qwen2ForCausalLM": LLAMA_LAYER | {f"self_attn.{name}_proj.bias" for name in "qkv"},
    "Qwen3ForCausalLM": LLAMA_LAYER | HEAD_NORMS,
    "Gemma3ForCausalLM": LLAMA_LAYER | HEAD_NORMS | {"pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"},
    "GPT2LMHeadModel": {
        f"{name}.{kind}" for name in ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")
    },
}
GPT2_OTHERS = {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"}
OTHERS = {"model.embed_tokens.weight", "model.norm.weight"}
TINY: dict[str, dict[str, Any]] = {
    "gemma3": GEMMA3,
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen2, tied": {**QWEN2, "tie_word_embeddings": True},
    "qwen3": QWEN3,
}
DECODERS = [(name, preset) for name in ("gemma3", "gpt2", "llama", "qwen2", "qwen3") for preset in FAMILIES.get(name).presets]


@pytest.fixture(params=TINY)
def export(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tokenizer = train_tokenizer(300)
    config = {**TINY[request.param], "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rules = family_of(config).build_mapping(config)
    write_hf_weights(config, rules, seeded_weights(1, config), tmp_path / "out", "bf16", tmp_path / "tokenizer")
    return tmp_path / "out"


def missing(config: dict[str, Any]) -> list[str]:
    """Fields that a program would look for in vain."""
    return [name for name in (*BOTH, *FIELDS[config["architectures"][0]]) if config.get(name) is None]


def expected_tensors(config: dict[str, Any]) -> set[str]:
    architecture = config["architectures"][0]
    is_gpt2 = architecture == "GPT2LMHeadModel"
    layers, others = ("transformer.h", GPT2_OTHERS) if is_gpt2 else ("model.layers", OTHERS)
    per_layer = {f"{layers}.{i}.{name}" for i in range(layer_count(config)) for name in LAYER_TENSORS[architecture]}
    # A head of their own where it is tied would be loaded twice by vLLM and be a second embedding in llama.cpp.
    return per_layer | others | (set() if config.get("tie_word_embeddings", is_gpt2) else {"lm_head.weight"})


def test_an_export_has_every_field_and_exactly_the_tensors_that_are_looked_for(export: Path):
    config, weights = read_json(export / "config.json"), SafetensorsReader(export)
    assert missing(config) == []
    assert missing({name: value for name, value in config.items() if name != "vocab_size"}) == ["vocab_size"]
    assert set(weights.tensors) == expected_tensors(config)
    assert config["torch_dtype"] == "bfloat16" and {weights.stored(name).dtype for name in weights.tensors} == {"BF16"}
    embedding = next(name for name in weights.tensors if name.endswith(("embed_tokens.weight", "wte.weight")))
    assert weights.stored(embedding).shape[0] == config["vocab_size"]


def test_an_export_has_the_tokenizer_where_it_is_looked_for(export: Path):
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {path.name for path in export.iterdir()}
    tokens = read_json(export / "tokenizer.json")
    ids = {*tokens["model"]["vocab"].values(), *(token["id"] for token in tokens["added_tokens"])}
    config = read_json(export / "config.json")
    assert ids == set(range(config["vocab_size"]))  # llama.cpp cuts Gemma's embedding to as many tokens as this file has
    assert config["eos_token_id"] in ids


@pytest.mark.parametrize(("family", "preset"), DECODERS)
def test_presets_have_no_value_that_vllm_or_llama_cpp_would_compute_otherwise(family: str, preset: str):
    config = FAMILIES.get(family).hf_config(preset, {})
    assert not config.get("use_sliding_window")
    if family in ("llama", "qwen2"):  # transformers 5 refuses others for Llama, vLLM divides for Qwen2
        assert config["hidden_size"] % config["num_attention_heads"] == 0
        assert config.get("head_dim") in (None, config["hidden_size"] // config["num_attention_heads"])
    if family == "gpt2":
        assert config.get("n_inner") in (None, 4 * config["n_embd"])  # llama.cpp does not read it
        assert not config.get("add_cross_attention") and not config.get("scale_attn_by_inverse_layer_idx")
        assert not config.get("reorder_and_upcast_attn")
    if family == "gemma3":
        normal = FAMILIES.get(family).normal_form(config)
        assert normal["hidden_size"] % normal["num_attention_heads"] == 0
        # Fixed in llama.cpp: five local layers to a global one, local rotary base 10000, softmax scale by the number of layers.
        assert normal["layer_types"] == [
            "full_attention" if i % 6 == 5 else "sliding_attention" for i in range(normal["num_hidden_layers"])
        ]
        assert normal["rope_local_base_freq"] == 10000
        by_layers = normal["hidden_size"] // normal["num_attention_heads"] if normal["num_hidden_layers"] == 62 else normal["head_dim"]
        assert normal["query_pre_attn_scalar"] == by_layers
