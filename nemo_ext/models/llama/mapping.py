"""Hugging Face tensor names <-> Megatron's for Llama (`model_type: llama`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import Rule
from nemo_ext.models.decoder_mapping import llama_like


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a Llama model: no biases, grouped queries, tied or untied output.

    Source of the names: transformers `modeling_llama.py` (4.57).
    """
    return llama_like(hf_config, padded_vocab_size)
