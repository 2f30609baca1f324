"""Hugging Face tensor names <-> Megatron's for Qwen1.5, Qwen2 and Qwen2.5 (all `model_type: qwen2`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import Rule
from nemo_ext.models.decoder_mapping import llama_like


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a Qwen2 model: biases on query, key and value, grouped queries, tied or untied output.

    Source of the names: transformers `modeling_qwen2.py` (4.57); its output projections and MLP have no biases.
    """
    return llama_like(hf_config, padded_vocab_size, qkv_bias=True)
