"""Hugging Face tensor names <-> Megatron's for Gemma 3 (`model_type: gemma3_text`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import Rule
from nemo_ext.models.decoder_mapping import llama_like
from nemo_ext.models.gemma3.presets import normal_form


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a Gemma 3 model: four norms in a layer, norms on the heads of query and key, no biases.

    Source of the names: transformers `modeling_gemma3.py` (4.57), class Gemma3ForCausalLM.
    """
    return llama_like(normal_form(hf_config), padded_vocab_size, query_key_norm=True, gemma_norms=True)
