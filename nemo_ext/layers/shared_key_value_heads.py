"""Query, key and value of a model with fewer key/value heads than tensor parallel ranks.

Megatron splits key/value heads over the ranks and refuses fewer heads than ranks (transformer_config.py, 0.15.3). Here
query heads are split, and the few key/value heads are on every rank, of which each uses the one that its queries belong
to. In a checkpoint they stand where they stand under any other layout: its keys and shapes do not depend on tp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig


class SharedKeyValueHeadsLinear(ColumnParallelLinear):
    """`[seq, batch, hidden]` -> this rank's query heads, then their key head, then their value head.

    config: a DecoderConfig whose key_value_heads divide tp. `weight` and `bias` are the queries', split; `kv_weight` and
    `kv_bias` are all key/value heads, on each rank the same: the gradients of all ranks' queries are added up in the
    backward pass, and not being marked as split they count once in the gradient norm.
    """

    def __init__(
        self, input_size: int, output_size: int, *, config: TransformerConfig, init_method: Callable[..., Any], bias: bool, **arguments: Any
    ) -> None:
        del output_size  # Megatron's, with a key and a value head for each rank
        arguments["skip_bias_add"] = True  # it is added here, with that of key and value
        self.head_dim, self.groups = config.kv_channels, config.key_value_heads
        super().__init__(
            input_size, config.num_attention_heads * self.head_dim, config=config, init_method=init_method, bias=bias, **arguments
        )
        self.rank, self.ranks = self.tp_group.rank(), self.tp_group.size()
        self.output_size_per_partition += 2 * self.head_dim
        self.gradient_accumulation_fusion = False  # it writes into the buffer of one parameter, and here are two
        self.kv_weight = torch.nn.Parameter(self.weight.new_empty(self.groups * 2 * self.head_dim, input_size))
        self.kv_bias = torch.nn.Parameter(self.weight.new_zeros(self.groups * 2 * self.head_dim)) if bias else None
        if config.perform_initialization:
            init_method(self.kv_weight)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
        output, query_bias = super().forward(hidden, weight=self._joined(self.weight, self.kv_weight))
        if self.kv_bias is not None:
            output = output + self._joined(query_bias, self.kv_bias)
        return output, None

    def _joined(self, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
        group = self.rank * self.groups // self.ranks
        heads = copy_to_tensor_model_parallel_region(key_value, group=self.tp_group).chunk(self.groups)
        return torch.cat([query, heads[group]])

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: Any = None) -> dict[str, Any]:
        """Every head as a piece of Megatron's fused `weight` (and `bias`): per group its query heads, a key and a value head."""
        per_group = self.config.num_attention_heads // self.groups  # query heads
        first, count = self.rank * per_group * self.groups // self.ranks, per_group * self.groups // self.ranks
        queries = [head // per_group * (per_group + 2) + head % per_group for head in range(first, first + count)]
        key_values = [group * (per_group + 2) + per_group + kind for group in range(self.groups) for kind in (0, 1)]
        state = super().sharded_state_dict(prefix, sharded_offsets, metadata)  # with the extra state that other layouts ask for
        for name in ("weight", "bias") if self.kv_bias is not None else ("weight",):
            for kind, heads, copy in (("", queries, 0), ("kv_", key_values, self.rank)):
                state[f"{prefix}{kind}{name}"] = self._heads(prefix + name, getattr(self, kind + name), heads, copy, sharded_offsets)
        return state

    def _heads(self, key: str, parameter: torch.Tensor, heads: Sequence[int], copy: int, layer: tuple[Any, ...]) -> ShardedTensorFactory:
        """A parameter that holds these heads of tensor `key`; `copy` is 0 on the tensor parallel rank that saves it."""
        heads_in_all = self.config.num_attention_heads + 2 * self.groups

        @torch.no_grad()
        def build(key: str, data: torch.Tensor, replica_id: Any, flattened_range: slice | None) -> list[ShardedTensor]:
            assert flattened_range is None, "whole parameters only, as this project's optimizers save them"
            return [
                ShardedTensor.from_rank_offsets(
                    key, part, *layer, (len(layer), head, heads_in_all), replica_id=replica_id, prepend_axis_num=len(layer)
                )
                for head, part in zip(heads, data.chunk(len(heads)), strict=True)
            ]

        replica = (0, copy, parallel_state.get_data_parallel_rank(with_context_parallel=True))
        return ShardedTensorFactory(key, parameter, build, torch.cat, replica)
