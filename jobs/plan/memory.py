"""Bytes on each rank: weights, gradients, optimizer state, activations, and what comes and goes on top of them.

Weights, gradients and optimizer as Megatron 0.15.3 and torch's or Apex' Adam hold them (param_and_grad_buffer.py,
distrib_optimizer.py): gradients in fp32, master weights and two moments in fp32. Left out: CUDA's context, NCCL's buffers and the
allocator's fragments, for which `RESERVED_BYTES` of a GPU stay free.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod

from jobs.plan.activations import FP32, Activations, activations
from jobs.plan.architecture import EMBEDDING, NEVER_TRAINED, Architecture
from jobs.plan.layout import Layout

PARAMETER_ALIGNMENT = 64  # elements: `_pad_start_of_param_if_needed`
BUCKET_ALIGNMENT = 128  # elements: `_pad_end_of_bucket_if_needed`
# Our judgement: about 1 GiB that the driver keeps, 0.5 GiB of context, 1 to 2 GiB of NCCL and cuBLAS, and fragments.
RESERVED_BYTES = 6 * 2**30


@dataclass(frozen=True)
class RankMemory:
    """Bytes on a rank of pipeline stage `stage`. The peak has the larger of `loss` and `working`, never both.

    activations: kept for the backward pass by all micro batches that are under way.
    loss: logits, softmax and their gradient. working: layers computed again, and gradients on their way.
    """

    stage: int
    parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    loss_bytes: int
    working_bytes: int

    @property
    def state_bytes(self) -> int:
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def peak_bytes(self) -> int:
        return self.state_bytes + self.activations_bytes + max(self.loss_bytes, self.working_bytes)


def rank_memory(architecture: Architecture, layout: Layout, hidden_dropout: float) -> list[RankMemory]:
    """Memory of a rank of each pipeline stage, the first stage first."""
    kept = activations(architecture.widths, layout, hidden_dropout)
    return [_stage_memory(architecture, layout, kept, stage) for stage in range(layout.pp)]


def _stage_memory(architecture: Architecture, layout: Layout, kept: Activations, stage: int) -> RankMemory:
    own = trained(architecture, layout, stage)
    sizes = [prod(shape) for _, shape in own]
    parameters, buffer = sum(sizes), buffer_elements(architecture, layout, stage)
    carried = sum(prod(shape) for _, shape in architecture.on_rank(stage, layout.tp, layout.pp)) - parameters
    per_stage = architecture.num_layers // layout.pp
    layers = slice(stage * per_stage, (stage + 1) * per_stage)
    one_micro_batch = sum(kept.layers[layers])
    one_micro_batch += kept.first if stage == 0 else 0
    is_last = stage == layout.pp - 1
    return RankMemory(
        stage=stage,
        parameters=parameters,
        weights_bytes=((buffer if layout.distributed_optimizer else parameters) + carried) * layout.dtype_bytes,
        gradients_bytes=buffer * FP32,
        optimizer_bytes=optimizer_elements(layout, parameters, buffer) * optimizer_bytes_per_parameter(layout),
        activations_bytes=one_micro_batch * min(layout.pp - stage, layout.micro_batches) + (kept.last if is_last else 0),
        loss_bytes=kept.loss + kept.loss_gradient if is_last else 0,
        # the last term is the gradient of one weight, before it is added to the others'
        working_bytes=max(kept.recomputed[layers]) + kept.gradients + max(sizes) * layout.dtype_bytes,
    )


def trained(architecture: Architecture, layout: Layout, stage: int) -> list[tuple[str, tuple[int, ...]]]:
    """(key, local shape) of the parameters on a rank that have gradients."""
    return [(key, shape) for key, shape in architecture.on_rank(stage, layout.tp, layout.pp) if not key.startswith(NEVER_TRAINED)]


def optimizer_bytes_per_parameter(layout: Layout) -> int:
    """Adam's two moments, and a master copy unless the weights are fp32 themselves."""
    return 2 * FP32 + (0 if layout.dtype_bytes == FP32 else FP32)


def optimizer_elements(layout: Layout, parameters: int, buffer: int) -> int:
    """Parameters whose optimizer state is on the fullest data parallel rank: an equal share of the padded buffer."""
    return min(parameters, buffer // (layout.dp * layout.cp)) if layout.distributed_optimizer else parameters


def buffer_elements(architecture: Architecture, layout: Layout, stage: int) -> int:
    """Elements of the buffer that holds a rank's gradients, padded where the optimizer is distributed.

    Tied embeddings on two stages have a bucket of their own. With communication overlapped Megatron makes more buckets, each
    with less than `BUCKET_ALIGNMENT` x dp elements of padding, which are not counted.
    """
    own = trained(architecture, layout, stage)
    if not layout.distributed_optimizer:
        return sum(prod(shape) for _, shape in own)
    is_shared = architecture.tied and layout.pp > 1
    buckets = [0, 0]
    for key, shape in own:
        buckets[is_shared and key == EMBEDDING] += _aligned(prod(shape), PARAMETER_ALIGNMENT)
    return sum(_aligned(size, lcm(layout.dp * layout.cp, BUCKET_ALIGNMENT)) for size in buckets)


def _aligned(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
