"""Qwen2's Hugging Face config -> Megatron config, or a refusal that names the field.

Covers Qwen1.5, Qwen2 and Qwen2.5: pre-norm RMSNorm, SwiGLU, rotary embedding, grouped queries, biases on query, key and
value only. Checked against transformers 4.57 (models/qwen2/modeling_qwen2.py); fields that it ignores are ignored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig

REQUIRED_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> DecoderConfig:
    """The Megatron config of a Qwen2 model; `megatron_fields` are parallel sizes, dtypes, sequence length, dropout and so on.

    Sequence length and attention dropout default to the Hugging Face config's. Raises ConversionError for a field that is
    missing or that Megatron would not compute as transformers does.
    """
    from torch.nn import functional

    from nemo_ext.models.decoder import DecoderConfig

    refuse_unexpressible(hf_config)
    heads = hf_config["num_attention_heads"]
    run_fields = {
        "seq_length": hf_config.get("max_position_embeddings", 32768),
        "attention_dropout": hf_config.get("attention_dropout", 0.0),
        "hidden_dropout": 0.0,
        **megatron_fields,
    }
    return DecoderConfig(
        num_layers=hf_config["num_hidden_layers"],
        hidden_size=hf_config["hidden_size"],
        ffn_hidden_size=hf_config["intermediate_size"],
        num_attention_heads=heads,
        num_query_groups=hf_config.get("num_key_value_heads") or heads,
        kv_channels=hf_config.get("head_dim") or hf_config["hidden_size"] // heads,
        true_vocab_size=hf_config["vocab_size"],
        share_embeddings_and_output_weights=hf_config.get("tie_word_embeddings", False),
        normalization="RMSNorm",
        layernorm_epsilon=hf_config.get("rms_norm_eps", 1e-6),
        position_embedding_type="rope",
        rotary_base=hf_config.get("rope_theta", 10000.0),
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        add_qkv_bias=True,
        init_method_std=hf_config.get("initializer_range", 0.02),
        **run_fields,
    )


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    _expect(hf_config, "model_type", "qwen2")
    for name in REQUIRED_SIZES:
        value = hf_config.get(name)
        if not isinstance(value, int) or value < 1:
            raise ConversionError(f"{name}={value!r} in the model's config.json; expected a whole number from 1 on.")
    _expect(hf_config, "hidden_act", "silu")
    _expect(hf_config, "use_sliding_window", False)
    _expect(hf_config, "partial_rotary_factor", 1.0)
    _expect(hf_config, "quantization_config", None)
    scaling = hf_config.get("rope_scaling")
    if scaling is not None and scaling.get("rope_type", scaling.get("type")) != "default":
        raise ConversionError(f"rope_scaling={scaling!r} cannot be expressed for a Qwen2 model. Set rope_scaling to null.")
    if set(hf_config.get("layer_types") or ()) - {"full_attention"}:
        raise ConversionError(f"layer_types={hf_config['layer_types']!r}: only 'full_attention' can be expressed. Leave layer_types out.")
    _check_heads(hf_config)


def _expect(hf_config: Mapping[str, Any], name: str, expected: Any) -> None:
    value = hf_config.get(name, expected)
    if value != expected:
        raise ConversionError(f"{name}={value!r} cannot be expressed for a Qwen2 model. Set {name} to {expected!r}.")


def _check_heads(hf_config: Mapping[str, Any]) -> None:
    heads, hidden = hf_config["num_attention_heads"], hf_config["hidden_size"]
    groups = hf_config.get("num_key_value_heads") or heads
    if heads % groups:
        raise ConversionError(f"num_attention_heads={heads} is not a multiple of num_key_value_heads={groups}.")
    if not hf_config.get("head_dim") and hidden % heads:
        raise ConversionError(f"hidden_size={hidden} is not a multiple of num_attention_heads={heads}. Change one, or set head_dim.")
