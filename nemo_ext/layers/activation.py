"""The activation between the two linear layers of an MLP, gated or plain, with a lean backward pass where it is gated."""

from __future__ import annotations

import torch
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn import functional

from nemo_ext.layers.elementwise import GatedActivation, gelu_backward, silu_backward, tanh_gelu_backward


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU by its tanh approximation, as GPT-2 and Gemma have it. Source: Hendrycks and Gimpel 2016, section 2."""
    return functional.gelu(x, approximate="tanh")


BACKWARD = {functional.silu: silu_backward, functional.gelu: gelu_backward, tanh_gelu: tanh_gelu_backward}


class Activation(MegatronModule):
    """`config.activation_func`, applied to the first half of the input and multiplied by the second if `config.gated_linear_unit`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config=config)
        self.function = config.activation_func

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden `[..., ffn]`, or `[..., 2 * ffn]` if gated; returns `[..., ffn]`."""
        if not self.config.gated_linear_unit:
            return self.function(hidden)
        if self.function in BACKWARD:
            return GatedActivation.apply(hidden, self.function, BACKWARD[self.function])
        gate, up = hidden.chunk(2, dim=-1)
        return self.function(gate) * up
