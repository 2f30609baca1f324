"""Hugging Face tensor names <-> Megatron's for Qwen3 (`model_type: qwen3`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import Rule
from nemo_ext.models.decoder_mapping import llama_like
from nemo_ext.models.qwen3.presets import complete


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a Qwen3 model: norms on the heads of query and key, no biases, grouped queries, tied or untied output.

    Source of the names: transformers `modeling_qwen3.py` (4.57).
    """
    return llama_like(complete(hf_config), padded_vocab_size, query_key_norm=True)
