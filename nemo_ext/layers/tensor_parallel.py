"""What Megatron's tensor parallel layers need besides their weights: marks on parameters, a softmax over the true
vocabulary only, scaled embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes


def mark_tensor_parallel(model: torch.nn.Module) -> None:
    """Mark the weights that are split over tensor parallel ranks, as Megatron does while it initialises them.

    With `perform_initialization=False` Megatron skips the marks too (tensor_parallel/layers.py, 0.15.3), NeMo then fills
    in "not split", and the gradient norm, and with it clipping, counts one rank's part only.
    """
    for module in model.modules():
        if isinstance(module, (VocabParallelEmbedding, ColumnParallelLinear, RowParallelLinear)):
            weight = module.weight
            if weight is not None and not hasattr(weight, "tensor_model_parallel"):
                split_dimension = 1 if isinstance(module, RowParallelLinear) else 0
                set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=split_dimension, stride=1)


def mask_padded_vocabulary(output_layer: ColumnParallelLinear, true_vocab_size: int) -> None:
    """Keep the padding columns of the logits out of the softmax, so that loss and gradients are those without padding.

    Works on each rank's columns `[seq, batch, padded_vocab / tp]` in place: the logits are the largest activation there
    is, and the product that made them needs no copy of them for its gradient.
    """

    def hide_padding(module: Any, arguments: Any, output: tuple[torch.Tensor, Any]) -> None:
        logits = output[0]
        columns = logits.size(-1)
        first_column = 0 if columns == module.output_size else parallel_state.get_tensor_model_parallel_rank() * columns
        padding_start = max(0, true_vocab_size - first_column)
        if padding_start < columns:
            logits[..., padding_start:] = torch.finfo(logits.dtype).min

    output_layer.register_forward_hook(hide_padding)


def scale_embedding(embedding: VocabParallelEmbedding, factor: float) -> None:
    """Multiply embeddings by `factor`, rounded to their dtype as transformers' Gemma does (55.4256 is 55.5 in bf16)."""

    def scale(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        return output * torch.tensor(factor, dtype=output.dtype)

    embedding.register_forward_hook(scale)
