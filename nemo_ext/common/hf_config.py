"""Sizes in a Hugging Face config under their common names, whatever the architecture calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Common name -> GPT-2's. Source: `attribute_map` of transformers' GPT2Config (4.57).
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def own_name(hf_config: Mapping[str, Any], name: str) -> str:
    """What this config calls the field of the common name `name`."""
    other = GPT2_NAMES.get(name)
    return other if other in hf_config else name  # type: ignore[return-value]


def with_common_names(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its sizes under their common names too; `intermediate_size` is there even where it is implied."""
    config = {**hf_config, **{name: hf_config[other] for name, other in GPT2_NAMES.items() if other in hf_config}}
    if "n_embd" in hf_config:  # GPT-2's MLP is four times as wide unless told otherwise
        config["intermediate_size"] = hf_config.get("n_inner") or 4 * hf_config["n_embd"]
    return config
