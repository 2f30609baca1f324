"""ModernBERT's Hugging Face config -> Megatron config, or a refusal that names the field.

Norms before the sublayers but for the first attention, windows in most layers with a rotary base of their own, a gated MLP, no
biases but the output layer's. Checked against transformers 4.57 (models/modernbert/modeling_modernbert.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.models.encoder_config import activation, require_activation, require_whole_heads
from nemo_ext.models.llama_like import REQUIRED_SIZES, expect, require_sizes
from nemo_ext.models.modernbert.presets import normal_form

if TYPE_CHECKING:
    from nemo_ext.models.encoder import EncoderConfig

EXPECTED = {
    "model_type": "modernbert",
    "architectures": ["ModernBertForMaskedLM"],
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "attention_dropout": 0.0,  # transformers drops the attention's output by the same rate, Megatron has one rate for all outputs
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
    "tie_word_embeddings": True,
    "rope_scaling": None,
    "rope_parameters": None,
    "layer_types": None,
    "quantization_config": None,
}


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> EncoderConfig:
    """The Megatron config of a ModernBERT model; `megatron_fields` are parallel sizes, dtypes, sequence length and so on.

    Of transformers' window half lies on each side of the query, whose own position comes on top, as in Megatron. In checkpoints
    every layer has keys of its own.
    Raises ConversionError for a field that Megatron would not compute as transformers does.
    """
    from nemo_ext.models.encoder import EncoderConfig

    config = normal_form(hf_config)
    refuse_unexpressible(config)
    side = config["local_attention"] // 2
    local_base = config["local_rope_theta"]
    derived = {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "true_vocab_size": config["vocab_size"],
        "normalization": "LayerNorm",
        "layernorm_epsilon": config["norm_eps"],
        "has_norm_bias": False,
        "has_first_norm": False,
        "position_embedding_type": "rope",
        "rotary_base": config["global_rope_theta"],
        "local_rotary_base": config["global_rope_theta"] if local_base is None else local_base,
        "window_size": (side, side),
        "window_attn_skip_freq": [int(layer % config["global_attn_every_n_layers"] > 0) for layer in range(config["num_hidden_layers"])],
        "gated_linear_unit": True,
        "activation_func": activation(config["hidden_activation"]),
        "add_bias_linear": False,
        "has_head_bias": False,
        "head_activation": activation(config["classifier_activation"]),
        "init_method_std": config["initializer_range"],
        "seq_length": config["max_position_embeddings"],
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }
    # Megatron's spelling: layers that differ in their tensors cannot be stacked in one.
    return EncoderConfig(**{**derived, **megatron_fields, "hetereogenous_dist_checkpoint": True})


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    config = normal_form(hf_config)
    for name, value in EXPECTED.items():
        expect(config, name, value)
    require_sizes(config, (*REQUIRED_SIZES, "local_attention", "global_attn_every_n_layers", "max_position_embeddings"))
    require_whole_heads(config)
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    if head_dim % 2:
        raise ConversionError(
            f"hidden_size={config['hidden_size']} / num_attention_heads={config['num_attention_heads']} is {head_dim}, but rotary "
            "positions turn the two halves of a head against each other. Choose sizes whose ratio is even."
        )
    for name in ("hidden_activation", "classifier_activation"):
        require_activation(config, name)
