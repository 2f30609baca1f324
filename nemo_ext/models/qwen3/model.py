"""Qwen3's Hugging Face config -> Megatron config, or a refusal that names the field.

A Llama-like decoder with an RMSNorm on each head of query and key, before the rotary embedding, and a head size of its
own. Checked against transformers 4.57 (models/qwen3/modeling_qwen3.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.models.llama_like import llama_like_config, refuse_unlike_llama, refuse_windows_and_scaling
from nemo_ext.models.qwen3.presets import complete

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> DecoderConfig:
    """The Megatron config of a Qwen3 model; `megatron_fields` are parallel sizes, dtypes, sequence length, dropout and so on.

    Raises ConversionError for a field that is missing or that Megatron would not compute as transformers does.
    """
    refuse_unexpressible(hf_config)
    return llama_like_config(complete(hf_config), qk_layernorm=True, **megatron_fields)


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    refuse_unlike_llama(complete(hf_config), {"model_type": "qwen3", "hidden_act": "silu", "attention_bias": False})
    refuse_windows_and_scaling(hf_config)
