"""Read pieces of a Megatron `torch_dist` checkpoint without building the model, by torch's public checkpoint API.

It takes the folder that holds `.metadata` and `*.distcp`, as NeMo and Megatron write it under any tp, pp and dp. Layers may be
stacked in one tensor `[layers, rows, ...]` or stored by number. Optimizer state is never read. The metadata is a pickle: open
checkpoints only from people you trust with your account.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import CheckpointError, ConversionError
from nemo_ext.common.quiet import quiet_libraries
from nemo_ext.convert.rules import LAYER, LAYER_IN_KEY, Entry, Rule, Table

if TYPE_CHECKING:
    import torch

MODEL_PREFIX = "module."  # NeMo's and Megatron's name for the model; all other tensors are optimizer or random state
EXTRA_STATE = "_extra_state"  # Transformer Engine's fp8 scales: no weights, and empty without fp8
_DAMAGED = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, AssertionError)


class CheckpointWeights:
    """The trained weights of a checkpoint, as a `WeightSource`.

    weights_dir: folder with `.metadata`. rules, num_layers: the table of the model that was trained.
    excluded: first part of a key -> entries that are no weights. dtypes: stored dtype -> tensors.
    Raises CheckpointError for a folder that is no checkpoint, ConversionError unless the checkpoint's model tensors are those
    of the table, each once and of its shape.
    """

    def __init__(self, weights_dir: Path | str, rules: Sequence[Rule], num_layers: int) -> None:
        self.weights_dir = Path(weights_dir)
        self.name = str(self.weights_dir)
        self.table = Table(rules, num_layers)
        self._reader, metadata = _open(self.weights_dir)
        self._stored: dict[str, Any] = {}
        self.excluded: Counter[str] = Counter()
        self._sort(metadata.state_dict_metadata)
        # Megatron's default is one tensor per kind with the layers as first axis; heterogeneous models store each layer apart.
        self.stacked = not any(LAYER_IN_KEY.search(key) for key in self._stored)
        self.dtypes = Counter(stored.properties.dtype for stored in self._stored.values())
        self._check()

    def _sort(self, entries: dict[str, Any]) -> None:
        """Part the weights from everything else; what is left out is counted by the first part of its key."""
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        for key, stored in entries.items():
            if key.startswith(MODEL_PREFIX) and EXTRA_STATE not in key:
                if not isinstance(stored, TensorStorageMetadata):
                    raise ConversionError(
                        f"{self.name} holds {key!r}, which is neither a tensor nor extra state, so it cannot be exported."
                    )
                self._stored[key.removeprefix(MODEL_PREFIX)] = stored
            else:
                self.excluded[EXTRA_STATE if EXTRA_STATE in key else key.split(".")[0].split("/")[0]] += 1

    def _check(self) -> None:
        """Every stored tensor has a rule, every rule its tensor, every shape is right."""
        for key in self._stored:
            self.table.find(key)
        problems = []
        for rule, layer in self.table.entries():
            key, stacked = self._locate(rule, layer)
            expected = ((self.table.num_layers,) if stacked else ()) + rule.shape
            if key not in self._stored:
                problems.append(f"missing {key!r} {list(expected)}")
            elif tuple(self._stored[key].size) != expected:
                problems.append(f"{key!r} has shape {list(self._stored[key].size)}, expected {list(expected)}")
        known = {self._locate(*entry)[0] for entry in self.table.entries()}
        problems += [f"unused {key!r}" for key in self._stored if key not in known]
        if problems:
            problems = list(dict.fromkeys(problems))
            raise ConversionError(
                f"The checkpoint {self.name} does not fit the model ({len(problems)} problem(s)): {'; '.join(problems[:8])}. "
                "Give the config.json that the run was trained with (RUN/model/config.json)."
            )

    def _locate(self, rule: Rule, layer: int | None) -> tuple[str, bool]:
        """Stored key of a tensor, and whether the layer is an axis of it."""
        if layer is None:
            return rule.key, False
        if self.stacked:
            return rule.key.replace(f"{LAYER}.", "", 1), True
        return Entry(rule, layer).name, False

    def fill(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int = 0) -> None:
        import torch

        key, stacked = self._locate(rule, layer)
        offsets = [row] if destination.dim() == 1 else [row, column]
        stored = self._stored[key].properties.dtype
        values = destination if destination.dtype == stored else torch.empty(destination.shape, dtype=stored)
        if stacked:
            assert layer is not None
            self._read(key, [layer, *offsets], values.unsqueeze(0))
        else:
            self._read(key, offsets, values)
        if values is not destination:
            destination.copy_(values)

    def _read(self, key: str, offsets: Sequence[int], values: torch.Tensor) -> None:
        """Fill `values` from the stored chunks that overlap the box at `offsets`. Raises CheckpointError if they do not cover it."""
        import torch
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata
        from torch.distributed.checkpoint.planner import LoadPlan
        from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

        box = ChunkStorageMetadata(torch.Size(offsets), values.size())
        items = create_read_items_for_chunk_list(MODEL_PREFIX + key, self._stored[key], [box])
        covered = sum(prod(item.lengths) for item in items)
        if covered != values.numel():
            raise CheckpointError(
                f"{self.weights_dir} stores {covered} of {values.numel()} elements of {key!r} {list(values.shape)} at {list(offsets)}. "
                "The checkpoint is incomplete; use an earlier one."
            )
        try:
            self._reader.read_data(LoadPlan(items), _planner_into(values)).wait()
        except _DAMAGED as error:
            raise CheckpointError(
                f"{self.weights_dir}: {key!r} cannot be read ({error}). A file is missing or damaged; use an earlier checkpoint."
            ) from None

    def pieces(self, rule: Rule, layer: int | None) -> Iterator[tuple[int, int]]:
        """Row ranges along the borders of the stored chunks, because torch always loads a chunk whole: each is then read once."""
        key, stacked = self._locate(rule, layer)
        chunks = [
            chunk
            for chunk in self._stored[key].chunks
            if not stacked or chunk.offsets[0] <= (layer or 0) < chunk.offsets[0] + chunk.sizes[0]
        ]
        axis = 1 if stacked else 0
        borders = sorted({edge for chunk in chunks for edge in (chunk.offsets[axis], chunk.offsets[axis] + chunk.sizes[axis])})
        yield from pairwise(borders)

    def stored_dtype(self) -> torch.dtype:
        """The one dtype that the checkpoint's weights have. Raises ConversionError when there are several."""
        if len(self.dtypes) != 1:
            found = ", ".join(f"{dtype} ({count} tensors)" for dtype, count in self.dtypes.items())
            raise ConversionError(f"{self.name} holds weights of several dtypes: {found}. Say which one to export: --dtype fp32 or bf16.")
        return next(iter(self.dtypes))


def _open(weights_dir: Path) -> tuple[Any, Any]:
    """Torch's reader of the folder, set up, and the checkpoint's metadata."""
    from torch.distributed.checkpoint import FileSystemReader

    if not (weights_dir / ".metadata").is_file():
        raise CheckpointError(f"{weights_dir} has no .metadata, so it is no complete Megatron checkpoint. Give a step's weights/ folder.")
    try:
        reader = FileSystemReader(weights_dir)
        with quiet_libraries():  # Megatron keeps classes of its own in .metadata, so reading it imports Megatron
            metadata = reader.read_metadata()
        reader.set_up_storage_reader(metadata, is_coordinator=True)
    except (*_DAMAGED, AttributeError, ImportError) as error:
        raise CheckpointError(f"{weights_dir / '.metadata'} cannot be read ({error}). Use an earlier checkpoint.") from None
    return reader, metadata


def _planner_into(values: torch.Tensor) -> Any:
    """A torch load planner that puts what is read into `values`, and nothing else."""
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

    class IntoTensor(DefaultLoadPlanner):
        def resolve_tensor(self, read_item: Any) -> torch.Tensor:
            target = values
            for axis, (offset, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
                target = target.narrow(axis, offset, length)
            return target

        def commit_tensor(self, read_item: Any, tensor: torch.Tensor) -> None:
            """Nothing to do: `resolve_tensor` gave a view of `values`."""

    return IntoTensor()
