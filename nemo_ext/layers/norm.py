"""RMSNorm and LayerNorm for Megatron layer specs, rounding where the Hugging Face models round.

Megatron's own WrappedTorchNorm refuses zero-centred weights and sequence parallelism, and keeps its weights in fp32
whatever the model's dtype (megatron/core/transformer/torch_norm.py, 0.15.3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn import functional

from nemo_ext.layers.elementwise import RmsNorm


class Norm(torch.nn.Module):
    """Normalise the last dimension of `[..., hidden_size]`; dtype and shape are kept.

    `config.normalization` chooses RMSNorm or LayerNorm, `config.layernorm_zero_centered_gamma` a weight stored as its
    distance from 1. `bias=False` (from a layer spec's params) makes a LayerNorm without bias; RMSNorm never has one.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.is_rms = config.normalization == "RMSNorm"
        self.is_zero_centered = config.layernorm_zero_centered_gamma
        self.eps = eps
        start = 0.0 if self.is_zero_centered else 1.0
        self.weight = torch.nn.Parameter(torch.full((hidden_size,), start, dtype=config.params_dtype))
        self.bias: torch.nn.Parameter | None = None
        if bias and not self.is_rms:
            self.bias = torch.nn.Parameter(torch.zeros(hidden_size, dtype=config.params_dtype))
        for parameter in self.parameters():
            # Each rank sees its part of the sequence only; the mark makes Megatron sum these gradients over the ranks.
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states `[..., hidden_size]`, normalised."""
        if self.is_rms and self.is_zero_centered:  # Gemma: normalise and scale in fp32, then round
            return RmsNorm.apply(hidden.float(), 1.0 + self.weight.float(), self.eps).type_as(hidden)
        if self.is_rms:  # Llama, Qwen: normalise in fp32, round, then scale
            return RmsNorm.apply(hidden, self.weight, self.eps)
        weight = self.weight + 1.0 if self.is_zero_centered else self.weight
        return functional.layer_norm(hidden, self.weight.shape, weight, self.bias, self.eps)


class PostNormAdd(torch.nn.Module):
    """Norm of a sublayer's output, then dropout, then the residual: in a layer spec in the place of `get_bias_dropout_add`.

    There, rather than inside the linear layer before it, that layer stays a plain one, which adapters can be merged into.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = Norm(config, config.hidden_size, config.layernorm_epsilon)

    def forward(self, training: bool, fused: bool) -> Callable[..., torch.Tensor]:
        """Megatron's contract: returns a function of (output, bias or None), residual and dropout rate; all `[seq, batch, hidden]`."""
        assert not fused, "DecoderConfig switches this fusion off"

        def add(output_with_bias: tuple[torch.Tensor, torch.Tensor | None], residual: torch.Tensor, rate: float) -> torch.Tensor:
            output, bias = output_with_bias
            normalised = self.norm(output if bias is None else output + bias)
            return residual + functional.dropout(normalised, rate, training)

        return add
