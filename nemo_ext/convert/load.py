"""Fill a sharded Megatron model with weights from a source, and prove that they are in it. No conversion step, no full model.

Each rank walks its own sharded state dict, which gives every local tensor's key and place in the whole tensor, and asks the
source for exactly that rectangle. Memory beyond the shard is one piece. Optimizer state is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.fingerprint import as_text, fingerprint_of
from nemo_ext.convert.rules import Entry, Rule, Table
from nemo_ext.convert.sources import PIECE_BYTES, WeightSource, row_steps

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shard:
    """A local tensor, or a half of a fused one, and its place: its first element is [row, column] of the whole tensor."""

    rule: Rule
    layer: int | None
    row: int
    column: int
    data: torch.Tensor
    main: bool  # whether this rank's copy is the one that counts; the others hold the same values

    @property
    def name(self) -> str:
        return Entry(self.rule, self.layer).name

    def fingerprint(self, dtype: torch.dtype | None) -> int:
        return fingerprint_of(self.data, Entry(self.rule, self.layer), self.row, self.column, dtype)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded: on this rank `tensors`, `bytes`, `seconds` and `conversions`; of the whole model the `fingerprint`.

    conversions: stored dtype and the model's -> elements, for sources that have a dtype.
    """

    source: str
    tensors: int
    bytes: int
    seconds: float
    fingerprint: str
    conversions: dict[str, int]


def load_weights(model: Any, rules: Sequence[Rule], source: WeightSource, dtype: torch.dtype | None = None) -> LoadReport:
    """Overwrite all weights of this rank's part of a Megatron model. Every rank must call it.

    dtype: what the model will be rounded to before it trains; the fingerprint is that of the rounded values.

    Raises ConversionError when a tensor is not in the table or has another shape, or when some row of the whole model was
    filled on no rank.
    """
    began = time.monotonic()
    shards = local_shards(model, rules)
    for shard in shards:
        source.fill(shard.data, shard.rule, shard.layer, shard.row, shard.column)
    fingerprint = _fingerprint_of_all_ranks(shards, Table(rules, model.config.num_layers), dtype)
    size_bytes = sum(shard.data.numel() * shard.data.element_size() for shard in shards)
    return LoadReport(source.name, len(shards), size_bytes, time.monotonic() - began, fingerprint, _conversions(source))


def _conversions(source: WeightSource) -> dict[str, int]:
    counts = getattr(source, "conversions", {})
    return {f"{stored} as {wanted}": elements for (stored, wanted), elements in sorted(counts.items())}


def weights_fingerprint(model: Any, rules: Sequence[Rule]) -> str:
    """Fingerprint of the whole model's weights as they are now, on all ranks. Every rank must call it.

    Equal to `LoadReport.fingerprint` exactly if the model holds what was loaded, under whatever layout. Raises ConversionError as
    `load_weights` does.
    """
    return _fingerprint_of_all_ranks(local_shards(model, rules), Table(rules, model.config.num_layers))


def source_fingerprint(rules: Sequence[Rule], num_layers: int, source: WeightSource) -> str:
    """Fingerprint of the weights that a source gives for a whole model, in fp32, piece by piece and without a model."""
    import torch

    total = 0
    for rule, layer in Table(rules, num_layers).entries():
        for start, stop in row_steps(rule.shape):
            values = torch.empty((stop - start, *rule.tail))
            source.fill(values, rule, layer, start)
            total += fingerprint_of(values, Entry(rule, layer), start)
    return as_text(total)


def different_tensors(model: Any, rules: Sequence[Rule], source: WeightSource) -> list[str]:
    """Names of this rank's tensors that are not the source's, compared bit by bit in the model's dtype."""
    import torch

    different = []
    for shard in local_shards(model, rules):
        step = max(1, PIECE_BYTES // max(1, 4 * prod(shard.data.shape[1:])))
        for start in range(0, shard.data.shape[0], step):
            found = shard.data[start : start + step].detach()
            expected = torch.empty_like(found)
            source.fill(expected, shard.rule, shard.layer, shard.row + start, shard.column)
            if not torch.equal(found, expected):
                different.append(shard.name)
                break
    return different


def local_shards(model: Any, rules: Sequence[Rule]) -> list[Shard]:
    """This rank's tensors with their places, in order of their keys. Raises ConversionError for a tensor unlike the table.

    `model` is a Megatron module with `config.num_layers` and `sharded_state_dict()`; gate and up of a gated MLP come as
    two shards, which are views of the one parameter.
    """
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory

    table = Table(rules, model.config.num_layers)
    shards = []
    for value in nested_values(model.sharded_state_dict()):
        for tensor in value.build() if isinstance(value, ShardedTensorFactory) else [value]:
            if isinstance(tensor, ShardedTensor):
                shards.append(_shard(tensor, table))
            elif not (isinstance(tensor, ShardedObject) and tensor.key.endswith("_extra_state")):  # Transformer Engine's fp8 state
                raise ConversionError(f"The model saves {tensor!r}, which is neither a tensor nor extra state. The table cannot fill it.")
    return sorted(shards, key=lambda shard: (shard.name, shard.row, shard.column))


def _shard(tensor: Any, table: Table) -> Shard:
    from megatron.core.dist_checkpointing.mapping import is_main_replica

    rule, layer = table.find(tensor.key)
    axes = tensor.prepend_axis_num
    shape, offset = tuple(tensor.global_shape[axes:]), tensor.global_offset[axes:]
    if axes:
        layer = tensor.global_offset[0]
    if shape != rule.shape:
        raise ConversionError(
            f"Megatron tensor {tensor.key!r} has shape {list(shape)}, but the Hugging Face config gives {list(rule.shape)}. "
            "The model was built from another config or with another vocabulary padding."
        )
    column = offset[1] if len(offset) > 1 else 0
    # Detached here, before anything is written: halves of a fused parameter are views that autograd would refuse to touch later.
    return Shard(rule, layer, offset[0], column, tensor.data.detach(), is_main_replica(tensor.replica_id))


def _fingerprint_of_all_ranks(shards: Sequence[Shard], table: Table, dtype: torch.dtype | None = None) -> str:
    """Add up all ranks' shards, each part of the model once. Raises ConversionError when a part is on no rank."""
    import torch.distributed as dist

    names = {entry.name: index for index, entry in enumerate(table.entries())}
    counts, total = [0] * len(names), 0
    for shard in shards:
        if shard.main:
            counts[names[shard.name]] += shard.data.numel()
            total += shard.fingerprint(dtype)
    ranks = [(counts, total)]
    if dist.is_initialized():
        ranks = [ranks[0]] * dist.get_world_size()
        dist.all_gather_object(ranks, (counts, total))
    summed = [sum(column) for column in zip(*(counts for counts, _ in ranks), strict=True)]
    wrong = [
        f"{entry.name} ({found} of {prod(entry.rule.shape)} elements)"
        for entry, found in zip(table.entries(), summed, strict=True)
        if found != prod(entry.rule.shape)
    ]
    if wrong:
        raise ConversionError(
            f"{len(wrong)} tensor(s) of the model are not on the ranks exactly once: {', '.join(wrong[:8])}. The model lacks them."
        )
    return as_text(sum(total for _, total in ranks))
