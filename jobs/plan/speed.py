"""Operations of a step, and how long it takes at a utilisation of the GPUs (MFU) that is stated or, failing that, estimated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from jobs.plan.architecture import EMBEDDING, OUTPUT, Architecture
from jobs.plan.layout import Layout

# MFU of a GPU that computes a micro batch, before what the layout costs. Megatron-LM's README reports 41 % (2 B parameters) to
# 47-48 % (462 B) on H100 for whole, tuned runs, https://github.com/NVIDIA/Megatron-LM; ours is the lower end, on untuned machines.
DEFAULT_MFU = 0.40
# One direction of NVLink on an A100 SXM, the slowest that sites here have; an H100 has 450 GB/s. Source: NVIDIA's data sheets.
NVLINK_BYTES_PER_S = 300e9
# fp32 without TF32 against dense bf16: 67 / 989 on an H100, 19.5 / 312 on an A100. Source: NVIDIA's data sheets.
FP32_SHARE_OF_PEAK = 1 / 16
BACKWARD = 2  # a backward pass has two matrix products for each of the forward pass


@dataclass(frozen=True)
class Operations:
    """Floating point operations of one token's forward pass: in the layers' matrices, in their attention, in the output layer."""

    matrices: float
    attention: float
    output: float

    @property
    def model(self) -> float:
        """Of a token's forward and backward pass, the numerator of MFU."""
        return (1 + BACKWARD) * (self.matrices + self.attention + self.output)

    def again(self, recompute: str) -> float:
        """Of what the backward pass computes again."""
        return {"none": 0.0, "selective": self.attention, "full": self.matrices + self.attention}[recompute]


def operations(architecture: Architecture, layout: Layout) -> Operations:
    """Two operations for each weight of a matrix, and four for each query and key that meet; within windows, and causal or both ways.

    Packed sequences are counted as if each filled its row.
    """
    widths = architecture.widths
    matrices = sum(
        2 * prod(tensor.shape) * len(tensor.layers) for tensor in architecture.tensors if tensor.layers and len(tensor.shape) == 2
    )
    output_keys = (EMBEDDING if architecture.tied else OUTPUT, "lm_head.dense.weight")
    output = sum(2 * prod(tensor.shape) for tensor in architecture.tensors if tensor.key in output_keys) * layout.predicted
    attention = sum(4 * widths.query * _mean_keys(layout.seq_length, window, widths.is_encoder) for window in widths.windows)
    return Operations(float(matrices), attention, output)


def _mean_keys(length: int, window: int | None, both_ways: bool) -> float:
    """Keys that a query sees on average: itself, and at most `window` before it, or before and after it."""
    reach = length if window is None else min(window + 1, length)
    seen = (reach * (reach + 1) / 2 + (length - reach) * reach) / length
    return 2 * seen - 1 if both_ways else seen


def modelled_step_s(architecture: Architecture, layout: Layout, peak_flops: float) -> float:
    """Seconds of a step at `DEFAULT_MFU` of each GPU's computation, with recomputation, pipeline bubble and tensor parallel exchange.

    1F1B takes micro batches + pp - 1 turns of one micro batch. Each layer exchanges its hidden states over tp four times, six when it is
    computed again; data parallel exchange is taken to hide behind the backward pass.
    """
    work = operations(architecture, layout)
    per_token = work.model + work.again(layout.recompute)
    compute_s = layout.tokens * per_token / (layout.tp * layout.pp) / (DEFAULT_MFU * _peak(layout, peak_flops))
    exchanges = 6 if layout.recompute == "full" else 4
    hidden_bytes = layout.tokens * architecture.widths.hidden * layout.dtype_bytes
    per_exchange_s = 2 * (layout.tp - 1) / layout.tp * hidden_bytes / NVLINK_BYTES_PER_S
    exchange_s = exchanges * per_exchange_s * architecture.num_layers / layout.pp
    return (layout.micro_batches + layout.pp - 1) * (compute_s + exchange_s)


def step_s_at(mfu: float, architecture: Architecture, layout: Layout, peak_flops: float) -> float:
    """Seconds of a step of the whole run at a stated MFU, whatever the layout."""
    tokens = layout.global_batch_size * layout.seq_length
    return tokens * operations(architecture, layout).model / (mfu * _peak(layout, peak_flops) * layout.ranks)


def mfu_at(step_s: float, architecture: Architecture, layout: Layout, peak_flops: float) -> float:
    """The whole run's MFU at a step's duration."""
    return step_s_at(1.0, architecture, layout, peak_flops) / step_s


def _peak(layout: Layout, peak_flops: float) -> float:
    """Peak at the run's precision, of which MFU is a share."""
    return peak_flops * (FP32_SHARE_OF_PEAK if layout.dtype_bytes == 4 else 1)
