"""Llama's Hugging Face config -> Megatron config, or a refusal that names the field.

Covers what transformers' Llama (4.57, models/llama/modeling_llama.py) computes without biases and without scaled rotary
embedding: Llama 1 and 2, Llama-shaped models such as SmolLM and TinyLlama, and our own from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.models.llama_like import llama_like_config, refuse_unlike_llama, refuse_windows_and_scaling

if TYPE_CHECKING:
    from nemo_ext.models.decoder import DecoderConfig


def megatron_config(hf_config: Mapping[str, Any], **megatron_fields: Any) -> DecoderConfig:
    """The Megatron config of a Llama model; `megatron_fields` are parallel sizes, dtypes, sequence length, dropout and so on.

    Raises ConversionError for a field that is missing or that Megatron would not compute as transformers does.
    """
    refuse_unexpressible(hf_config)
    return llama_like_config(hf_config, **megatron_fields)


def refuse_unexpressible(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError, naming field and value, for a field that Megatron would not compute as transformers does. No torch."""
    refuse_unlike_llama(hf_config, {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False})
    refuse_windows_and_scaling(hf_config)
