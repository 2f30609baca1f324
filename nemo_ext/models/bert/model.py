"""BERT's Hugging Face config -> Megatron config, or a refusal that names the field.

Learned positions and token types, norms after the sublayers, biases everywhere. Checked against transformers 4.57
(models/bert/modeling_bert.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.models.bert.presets import ARCHITECTURES, carries_pooler, normal_form
from nemo_ext.models.encoder_config import activation, require_activation, require_whole_heads
from nemo_ext.models.llama_like import REQUIRED_SIZES, expect, require_sizes

if TYPE_CHECKING:
    from nemo_ext.models.encoder import EncoderConfig

EXPECTED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
}


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> EncoderConfig:
    """The Megatron config of a BERT model; `megatron_fields` are parallel sizes, dtypes, dropout and so on.

    Dropout defaults to the Hugging Face config's. `seq_length` is always the number of learned positions, of which Megatron
    makes as many. Raises ConversionError for a field that is missing or that Megatron would not compute as transformers does.
    """
    from nemo_ext.models.encoder import EncoderConfig

    config = normal_form(hf_config)
    refuse_unexpressible(config)
    act = activation(config["hidden_act"])
    derived = {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "true_vocab_size": config["vocab_size"],
        "normalization": "LayerNorm",
        "layernorm_epsilon": config["layer_norm_eps"],
        "has_norms_after": True,
        "position_embedding_type": "learned_absolute",
        "token_types": config["type_vocab_size"],
        "gated_linear_unit": False,
        "activation_func": act,
        "head_activation": act,
        "add_bias_linear": True,
        "carries_pooler": carries_pooler(config),
        "init_method_std": config["initializer_range"],
        "attention_dropout": config["attention_probs_dropout_prob"],
        "hidden_dropout": config["hidden_dropout_prob"],
    }
    return EncoderConfig(**{**derived, **megatron_fields, "seq_length": config["max_position_embeddings"]})


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    config = normal_form(hf_config)
    for name, value in EXPECTED.items():
        expect(config, name, value)
    architectures = config.get("architectures") or [None]
    if architectures[0] not in ARCHITECTURES:
        raise ConversionError(f"architectures={architectures!r}: a BERT model can be trained as one of: {', '.join(ARCHITECTURES)}.")
    require_sizes(config, (*REQUIRED_SIZES, "max_position_embeddings", "type_vocab_size"))
    require_whole_heads(config)
    require_activation(config, "hidden_act")
