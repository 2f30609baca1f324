"""Query, key and value of a model with one key/value head, under any tensor parallel size.

Megatron splits key/value heads over the ranks and refuses fewer heads than ranks (transformer_config.py, 0.15.3). Here
query heads are split and the one key/value head is on every rank, as it is in the checkpoint: its keys do not depend on tp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig


class OneKeyValueHeadLinear(ColumnParallelLinear):
    """`[seq, batch, hidden]` -> this rank's query heads, then the key head, then the value head.

    `weight` and `bias` are the queries', split; `kv_weight` and `kv_bias` are on each rank the same: the gradients of all
    ranks' queries are added up in the backward pass, and not being marked as split they count once in the gradient norm.
    """

    def __init__(
        self, input_size: int, output_size: int, *, config: TransformerConfig, init_method: Callable[..., Any], bias: bool, **arguments: Any
    ) -> None:
        del output_size  # Megatron's, with a key and a value head for each rank
        arguments["skip_bias_add"] = True  # it is added here, with that of key and value
        query_size, key_value_size = config.num_attention_heads * config.kv_channels, 2 * config.kv_channels
        super().__init__(input_size, query_size, config=config, init_method=init_method, bias=bias, **arguments)
        self.output_size_per_partition += key_value_size
        self.gradient_accumulation_fusion = False  # it writes into the buffer of one parameter, and here are two
        self.kv_weight = torch.nn.Parameter(self.weight.new_empty(key_value_size, input_size))
        self.kv_bias = torch.nn.Parameter(self.weight.new_zeros(key_value_size)) if bias else None
        if config.perform_initialization:
            init_method(self.kv_weight)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
        output, query_bias = super().forward(hidden, weight=self._joined(self.weight, self.kv_weight))
        if self.kv_bias is not None:
            output = output + self._joined(query_bias, self.kv_bias)
        return output, None

    def _joined(self, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
        return torch.cat([query, copy_to_tensor_model_parallel_region(key_value, group=self.tp_group)])
