"""Read pieces of a Megatron `torch_dist` checkpoint without building the model, and without reading more than is asked for.

It takes the folder that holds `.metadata` and `*.distcp`, as NeMo, Megatron and `sibol import` write it under any tp, pp and dp. Layers
may be stacked in one tensor `[layers, rows, ...]` or stored by number. Optimizer state is never read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import CheckpointError, ConversionError
from nemo_ext.common.files import sha256_of_file
from nemo_ext.convert.distributed_files import DAMAGED, METADATA_FILE, Record, locate, read_metadata
from nemo_ext.convert.rectangles import Files, StoredMatrix
from nemo_ext.convert.rules import LAYER, LAYER_IN_KEY, Entry, Rule, Table

if TYPE_CHECKING:
    import torch

MODEL_PREFIX = "module."  # NeMo's and Megatron's name for the model; all other tensors are optimizer or random state
EXTRA_STATE = "_extra_state"  # Transformer Engine's fp8 scales: no weights, and empty without fp8


@dataclass(frozen=True)
class _Chunk:
    """A stored box of one layer of a tensor: its place in the layer `[rows, columns]`, and where it lies on disk."""

    record: Record
    index: int  # of the layer, in a chunk of several
    row: int
    column: int
    rows: int
    columns: int
    inner: int  # elements behind each column: 1, but for tensors of more than two dimensions


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
        entries, self._places = read_metadata(self.weights_dir)
        self._files = Files()
        self._matrices: dict[Record, StoredMatrix] = {}
        self._stored: dict[str, Any] = {}
        self.excluded: Counter[str] = Counter()
        self._sort(entries)
        # Megatron's default is one tensor per kind with the layers as first axis; heterogeneous models store each layer apart.
        self.stacked = not any(LAYER_IN_KEY.search(key) for key in self._stored)
        self.dtypes = Counter(stored.properties.dtype for stored in self._stored.values())
        self._check()
        self._chunks = self._index_chunks()

    def identity(self) -> dict[str, Any]:
        files = sorted(self.weights_dir.glob("*.distcp"))
        return {
            "metadata_sha256": sha256_of_file(self.weights_dir / METADATA_FILE),
            "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        }

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

    def _index_chunks(self) -> dict[tuple[str, int | None], list[_Chunk]]:
        """The chunks of each tensor, by its stored key and, where layers are stacked, by layer."""
        index = defaultdict(list)
        stacked = {key for key, is_stacked in (self._locate(*entry) for entry in self.table.entries()) if is_stacked}
        for key, stored in self._stored.items():
            for chunk in stored.chunks:
                record = self._places.get((MODEL_PREFIX + key, tuple(chunk.offsets)))
                if record is None:
                    continue  # what then lacks is noticed when it is read
                axes = 1 if key in stacked else 0
                place, sizes = tuple(chunk.offsets[axes:]), tuple(chunk.sizes[axes:])
                layers = range(chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0]) if axes else [None]
                for position, layer in enumerate(layers):
                    column, columns = (place[1], sizes[1]) if len(sizes) > 1 else (0, 1)
                    index[key, layer].append(_Chunk(record, position, place[0], column, sizes[0], columns, prod(sizes[2:])))
        return index

    def fill(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int = 0) -> None:
        key, stacked = self._locate(rule, layer)
        rows, columns = destination.shape[0], destination.shape[1] if destination.dim() > 1 else 1
        covered = 0
        for chunk in self._chunks.get((key, layer if stacked else None), ()):
            top, bottom = max(row, chunk.row), min(row + rows, chunk.row + chunk.rows)
            left, right = max(column, chunk.column), min(column + columns, chunk.column + chunk.columns)
            if top < bottom and left < right:
                part = destination[top - row : bottom - row]
                part = part[:, left - column : right - column] if destination.dim() > 1 else part
                self._read(key, chunk, part, top - chunk.row, left - chunk.column)
                covered += part.numel()
        if covered != destination.numel():
            raise CheckpointError(
                f"{self.weights_dir} stores {covered} of {destination.numel()} elements of {key!r} {list(destination.shape)} "
                f"at {[row, column]}. The checkpoint is incomplete; use an earlier one."
            )

    def _read(self, key: str, chunk: _Chunk, part: torch.Tensor, row: int, column: int) -> None:
        """Fill `part` with the rectangle at [row, column] of a chunk. Raises CheckpointError when that cannot be read."""
        try:
            if chunk.record not in self._matrices:
                self._matrices[chunk.record] = locate(self.weights_dir, chunk.record)
            matrix = replace(self._matrices[chunk.record], row_elements=chunk.columns * chunk.inner)
            self._files.read_into(matrix, part, chunk.index * chunk.rows + row, column * chunk.inner)
        except DAMAGED as error:
            raise CheckpointError(
                f"{self.weights_dir}: {key!r} cannot be read ({error}). A file is missing or damaged; use an earlier checkpoint."
            ) from None

    def stored_dtype(self) -> torch.dtype:
        """The one dtype that the checkpoint's weights have. Raises ConversionError when there are several."""
        if len(self.dtypes) != 1:
            found = ", ".join(f"{dtype} ({count} tensors)" for dtype, count in self.dtypes.items())
            raise ConversionError(f"{self.name} holds weights of several dtypes: {found}. Say which one to export: --dtype fp32 or bf16.")
        return next(iter(self.dtypes))
