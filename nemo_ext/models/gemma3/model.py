"""Gemma 3's Hugging Face config -> Megatron config, or a refusal that names the field.

A decoder with zero-centred RMSNorms before and after each sublayer and on the heads of query and key, sliding windows in
most layers with a rotary base of their own, scaled embeddings and a GELU gate. Checked against transformers 4.57
(models/gemma3/modeling_gemma3.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.models.gemma3.presets import GLOBAL, LOCAL, normal_form
from nemo_ext.models.llama_like import llama_like_config, refuse_unlike_llama

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig

EXPECTED = {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
}


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> DecoderConfig:
    """The Megatron config of a Gemma 3 model; `megatron_fields` are parallel sizes, dtypes, sequence length, dropout and so on.

    A window of transformers' counts the query itself (masking_utils.py, `kv_idx > q_idx - sliding_window`), Megatron's does not.
    Raises ConversionError for a field that Megatron would not compute as transformers does.
    """
    from nemo_ext.layers.activation import tanh_gelu

    config = normal_form(hf_config)
    refuse_unexpressible(config)
    return llama_like_config(
        config,
        activation_func=tanh_gelu,
        qk_layernorm=True,
        layernorm_zero_centered_gamma=True,
        has_post_norms=True,
        has_scaled_embedding=True,
        softmax_scale=config["query_pre_attn_scalar"] ** -0.5,
        window_size=(config["sliding_window"] - 1, 0),
        window_attn_skip_freq=[int(kind == LOCAL) for kind in config["layer_types"]],
        local_rotary_base=config["rope_local_base_freq"],
        global_rotary_factor=(config["rope_scaling"] or {}).get("factor", 1.0),
        **megatron_fields,
    )


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    config = normal_form(hf_config)
    refuse_unlike_llama(config, EXPECTED)
    kinds, layers = config["layer_types"], config["num_hidden_layers"]
    if len(kinds) != layers or set(kinds) - {LOCAL, GLOBAL}:
        raise ConversionError(f"layer_types={kinds!r}; expected one of {LOCAL!r}, {GLOBAL!r} for each of {layers} layers.")
    for name in ("sliding_window", "query_pre_attn_scalar"):
        if not isinstance(config[name], int) or config[name] < 1:
            raise ConversionError(f"{name}={config[name]!r} in the model's config.json; expected a whole number from 1 on.")
    scaling = config["rope_scaling"]
    if scaling and scaling.get("rope_type", scaling.get("type")) not in ("default", "linear"):
        raise ConversionError(f"rope_scaling={scaling!r} cannot be expressed for a Gemma 3 model. Use rope_type 'linear', or null.")
