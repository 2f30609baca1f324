"""Bytes on disk: checkpoints, the exported model, the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from jobs.plan.activations import FP32
from jobs.plan.architecture import Architecture
from jobs.plan.layout import Layout
from nemo_ext.common.blend import Blend
from nemo_ext.config import RunConfig

SMALL_VOCABULARY = 65500  # below it Megatron stores a token in two bytes: indexed_dataset.py, `optimal_dtype`
MASTER_AND_MOMENTS = 3 * FP32  # the optimizer's part of a checkpoint, in the format that any layout can read


@dataclass(frozen=True)
class Storage:
    """Bytes. `checkpoints_kept` counts the one being written beside those that stay."""

    checkpoint_bytes: int
    checkpoints_kept: int
    export_bytes: int
    trained_tokens: int
    dataset_bytes: int
    dataset_is_measured: bool

    @property
    def total_bytes(self) -> int:
        return self.checkpoint_bytes * self.checkpoints_kept + self.export_bytes + self.dataset_bytes


def storage(config: RunConfig, architecture: Architecture, layout: Layout, data: Blend | None, saves: int) -> Storage:
    """Storage of the run that saves `saves` times. Without the data at hand, every trained token is taken to be another."""
    keep = config.checkpoint.keep_last or saves
    tokens = config.train.max_steps * layout.global_batch_size * layout.seq_length
    token_bytes = 2 if architecture.hf_config["vocab_size"] < SMALL_VOCABULARY else 4
    stored = sum(split.bin_bytes + split.idx_bytes for dataset in data.datasets for split in dataset.splits.values()) if data else 0
    return Storage(
        checkpoint_bytes=checkpoint_bytes(architecture, layout),
        checkpoints_kept=min(keep, saves) + 1,
        export_bytes=exported_parameters(architecture) * layout.dtype_bytes,
        trained_tokens=tokens,
        dataset_bytes=stored or tokens * token_bytes,
        dataset_is_measured=data is not None,
    )


def checkpoint_bytes(architecture: Architecture, layout: Layout) -> int:
    """A checkpoint's weights, master weights and two moments; the same for every layout."""
    return architecture.parameters * (layout.dtype_bytes + MASTER_AND_MOMENTS)


def exported_parameters(architecture: Architecture) -> int:
    """Parameters without the vocabulary's padding."""
    padding = 0
    for tensor in architecture.tensors:
        if tensor.key.endswith(("word_embeddings.weight", "output_layer.weight", "output_layer.bias")):
            padding += (tensor.shape[0] - architecture.hf_config["vocab_size"]) * prod(tensor.shape[1:])
    return architecture.parameters - padding
