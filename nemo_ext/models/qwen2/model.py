"""Qwen2's Hugging Face config -> Megatron config, or a refusal that names the field.

Covers Qwen1.5, Qwen2 and Qwen2.5: a Llama-like decoder with biases on query, key and value. Checked against transformers
4.57 (models/qwen2/modeling_qwen2.py); fields that it ignores are ignored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.models.llama_like import llama_like_config, refuse_unlike_llama, refuse_windows_and_scaling

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> DecoderConfig:
    """The Megatron config of a Qwen2 model; `megatron_fields` are parallel sizes, dtypes, sequence length, dropout and so on.

    Raises ConversionError for a field that is missing or that Megatron would not compute as transformers does.
    """
    refuse_unexpressible(hf_config)
    return llama_like_config(hf_config, add_qkv_bias=True, **megatron_fields)


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    refuse_unlike_llama(hf_config, {"model_type": "qwen2", "hidden_act": "silu"})
    refuse_windows_and_scaling(hf_config)
