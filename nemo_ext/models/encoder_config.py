"""What reading the Hugging Face configs of encoders takes: their activations, and the refusal of others. No torch at import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nemo_ext.common.errors import ConversionError

ERF_GELU, TANH_GELU = "gelu", ("gelu_new", "gelu_pytorch_tanh")  # transformers' names; the last two are the same function


def activation(name: str) -> Callable[..., Any]:
    """The function that transformers calls `name`."""
    from torch.nn import functional

    from nemo_ext.layers.activation import tanh_gelu

    return tanh_gelu if name in TANH_GELU else functional.gelu


def require_activation(hf_config: Mapping[str, Any], field: str) -> None:
    """Raise ConversionError unless the config's activation is a GELU."""
    name = hf_config.get(field, ERF_GELU)
    if name not in (ERF_GELU, *TANH_GELU):
        raise ConversionError(f"{field}={name!r} is not known. Choose one of: {', '.join((ERF_GELU, *TANH_GELU))}.")


def require_whole_heads(hf_config: Mapping[str, Any]) -> None:
    """Raise ConversionError unless the heads share the hidden size out evenly."""
    hidden, heads = hf_config["hidden_size"], hf_config["num_attention_heads"]
    if hidden % heads:
        raise ConversionError(f"hidden_size={hidden} is not a multiple of num_attention_heads={heads}. Change one.")
