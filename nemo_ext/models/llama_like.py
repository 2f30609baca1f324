"""What decoders like Llama have in common: their Hugging Face config -> Megatron config, and what Megatron cannot express.

Pre-norm RMSNorm, rotary embedding, grouped queries and a gated MLP without biases. A family's `model` adds what it does
otherwise. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig

REQUIRED_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def llama_like_config(hf_config: Mapping[str, Any], **fields: Any) -> DecoderConfig:
    """The Megatron config of a Llama-like decoder; `fields`, a family's and the run's, replace what is derived here.

    Sequence length and attention dropout default to the Hugging Face config's.
    """
    from torch.nn import functional

    from nemo_ext.models.decoder import DecoderConfig

    heads = hf_config["num_attention_heads"]
    derived = {
        "num_layers": hf_config["num_hidden_layers"],
        "hidden_size": hf_config["hidden_size"],
        "ffn_hidden_size": hf_config["intermediate_size"],
        "num_attention_heads": heads,
        "num_query_groups": hf_config.get("num_key_value_heads") or heads,
        "kv_channels": hf_config.get("head_dim") or hf_config["hidden_size"] // heads,
        "true_vocab_size": hf_config["vocab_size"],
        "share_embeddings_and_output_weights": hf_config.get("tie_word_embeddings", False),
        "normalization": "RMSNorm",
        "layernorm_epsilon": hf_config.get("rms_norm_eps", 1e-6),
        "position_embedding_type": "rope",
        "rotary_base": hf_config.get("rope_theta", 10000.0),
        "gated_linear_unit": True,
        "activation_func": functional.silu,
        "add_bias_linear": False,
        "init_method_std": hf_config.get("initializer_range", 0.02),
        "seq_length": hf_config.get("max_position_embeddings", 32768),
        "attention_dropout": hf_config.get("attention_dropout", 0.0),
        "hidden_dropout": 0.0,
    }
    return DecoderConfig(**{**derived, **fields})


def refuse_unlike_llama(hf_config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ConversionError unless the sizes are there and fit, and every field of `expected` has that value or is absent."""
    for name, value in {**expected, "quantization_config": None, "rope_parameters": None}.items():
        expect(hf_config, name, value)
    require_sizes(hf_config, REQUIRED_SIZES)
    heads, hidden = hf_config["num_attention_heads"], hf_config["hidden_size"]
    groups = hf_config.get("num_key_value_heads") or heads
    if heads % groups:
        raise ConversionError(f"num_attention_heads={heads} is not a multiple of num_key_value_heads={groups}.")
    if not hf_config.get("head_dim") and hidden % heads:
        raise ConversionError(f"hidden_size={hidden} is not a multiple of num_attention_heads={heads}. Change one, or set head_dim.")


def refuse_windows_and_scaling(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError for sliding windows and for a scaled or partial rotary embedding."""
    expect(hf_config, "use_sliding_window", False)
    expect(hf_config, "partial_rotary_factor", 1.0)
    scaling = hf_config.get("rope_scaling")
    if scaling is not None and scaling.get("rope_type", scaling.get("type")) != "default":
        raise _inexpressible(hf_config, "rope_scaling", None)
    if set(hf_config.get("layer_types") or ()) - {"full_attention"}:
        raise ConversionError(f"layer_types={hf_config['layer_types']!r}: only 'full_attention' can be expressed. Leave layer_types out.")


def require_sizes(hf_config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ConversionError for a size that is absent or no whole number from 1 on."""
    for name in names:
        value = hf_config.get(name)
        if not isinstance(value, int) or value < 1:
            raise ConversionError(f"{name}={value!r} in the model's config.json; expected a whole number from 1 on.")


def expect(hf_config: Mapping[str, Any], name: str, expected: Any) -> None:
    """Raise ConversionError unless a field is absent or has the one value that Megatron computes."""
    if hf_config.get(name, expected) != expected:
        raise _inexpressible(hf_config, name, expected)


def _inexpressible(hf_config: Mapping[str, Any], name: str, expected: Any) -> ConversionError:
    kind = hf_config.get("model_type")
    remedy = " Choose another model: with another value this one would compute something else."
    if name == "rope_parameters":
        remedy = " transformers 5 writes it: load and save the model with transformers 4.57, which keeps rope_theta as a field of its own."
    return ConversionError(f"{name}={hf_config[name]!r} cannot be expressed for a {kind} model, only {expected!r} can.{remedy}")
