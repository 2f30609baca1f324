"""GPT-2's Hugging Face config -> Megatron config, or a refusal that names the field.

Learned positions, LayerNorm, plain MLP, biases everywhere. Checked against transformers 4.57 (models/gpt2/modeling_gpt2.py);
fields that it ignores, and those of its classification heads, are ignored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.models.llama_like import expect, require_sizes

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")  # two names of the tanh approximation in transformers
ACTIVATIONS = (*TANH_GELU, "gelu")
EXPECTED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
DROPOUT = 0.1  # transformers' default of all three rates


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> DecoderConfig:
    """The Megatron config of a GPT-2 model; `megatron_fields` are parallel sizes, dtypes, dropout and so on.

    Dropout defaults to the Hugging Face config's. `seq_length` is always the number of learned positions, of which Megatron
    makes as many, however short the run's sequences are. Raises ConversionError for a field that is missing or that Megatron would
    not compute as transformers does.
    """
    from torch.nn import functional

    from nemo_ext.layers.activation import tanh_gelu
    from nemo_ext.models.decoder import DecoderConfig

    refuse_unexpressible(hf_config)
    derived = {
        "num_layers": hf_config["n_layer"],
        "hidden_size": hf_config["n_embd"],
        "ffn_hidden_size": hf_config.get("n_inner") or 4 * hf_config["n_embd"],
        "num_attention_heads": hf_config["n_head"],
        "true_vocab_size": hf_config["vocab_size"],
        "share_embeddings_and_output_weights": hf_config.get("tie_word_embeddings", True),
        "normalization": "LayerNorm",
        "layernorm_epsilon": hf_config.get("layer_norm_epsilon", 1e-5),
        "position_embedding_type": "learned_absolute",
        "gated_linear_unit": False,
        "activation_func": tanh_gelu if _activation(hf_config) in TANH_GELU else functional.gelu,
        "add_bias_linear": True,
        "init_method_std": hf_config.get("initializer_range", 0.02),
        "attention_dropout": hf_config.get("attn_pdrop", DROPOUT),
        "hidden_dropout": hf_config.get("resid_pdrop", DROPOUT),
    }
    return DecoderConfig(**{**derived, **megatron_fields, "seq_length": hf_config["n_positions"]})


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    for name, value in EXPECTED.items():
        expect(hf_config, name, value)
    require_sizes(hf_config, ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size"))
    if hf_config["n_embd"] % hf_config["n_head"]:
        raise ConversionError(f"n_embd={hf_config['n_embd']} is not a multiple of n_head={hf_config['n_head']}. Change one.")
    if _activation(hf_config) not in ACTIVATIONS:
        raise ConversionError(f"activation_function={_activation(hf_config)!r} is not known. Choose one of: {', '.join(ACTIVATIONS)}.")
    embedding, residual = (hf_config.get(name, DROPOUT) for name in ("embd_pdrop", "resid_pdrop"))
    if embedding != residual:
        raise ConversionError(
            f"embd_pdrop={embedding!r} is not resid_pdrop={residual!r}, but Megatron has one rate for both. Set them alike."
        )


def _activation(hf_config: Mapping[str, Any]) -> str:
    return hf_config.get("activation_function", "gelu_new")
