"""Write a Hugging Face safetensors file in pieces: the header first, then rows as they come, in any order.

The memory needed is that of one piece, whatever the model's size. Every row is counted, so a file that lacks a row or got one
twice cannot be finished.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.reader import SINGLE_FILE

if TYPE_CHECKING:
    import torch

GIBIBYTE = 2**30
DTYPE_NAMES = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint: its name, and its tensors' shapes in the order in which they are laid out."""

    file: str
    shapes: dict[str, tuple[int, ...]]

    def elements(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())


def plan_shards(shapes: Mapping[str, Sequence[int]], element_bytes: int, max_shard_bytes: int = 5 * GIBIBYTE) -> list[Shard]:
    """Spread tensors over files of at most `max_shard_bytes`; a larger tensor gets a file of its own."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    size_bytes = 0
    for name, shape in shapes.items():
        tensor_bytes = prod(shape) * element_bytes
        if groups[-1] and size_bytes + tensor_bytes > max_shard_bytes:
            groups.append({})
            size_bytes = 0
        groups[-1][name] = tuple(shape)
        size_bytes += tensor_bytes
    if len(groups) == 1:
        return [Shard(SINGLE_FILE, groups[0])]
    return [Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group) for number, group in enumerate(groups, start=1)]


def shard_index(shards: Sequence[Shard], element_bytes: int) -> dict[str, Any]:
    """Content of model.safetensors.index.json."""
    where = dict(sorted((name, shard.file) for shard in shards for name in shard.shapes))
    return {"metadata": {"total_size": sum(shard.elements() for shard in shards) * element_bytes}, "weight_map": where}


@dataclass
class _Target:
    """A tensor being written: where it begins in the file, its shape, and which rows are there already."""

    begin_byte: int
    shape: tuple[int, ...]
    written: bytearray


class SafetensorsWriter:
    """Writes the file `path` with tensors of one dtype; `shapes`: name -> shape, in the order in which they are laid out.

    Use as a context manager; call `finish` at the end.
    """

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> None:
        if str(dtype) not in DTYPE_NAMES:
            raise ConversionError(f"Weights cannot be exported as {dtype}. Choose one of: {', '.join(DTYPE_NAMES)}.")
        self.dtype = dtype
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets, end = {}, 0
        for name, shape in shapes.items():
            offsets[name], end = end, end + prod(shape) * dtype.itemsize
            header[name] = {"dtype": DTYPE_NAMES[str(dtype)], "shape": list(shape), "data_offsets": [offsets[name], end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format wants the data aligned to 8 bytes
        self._handle = open(path, "w+b")  # noqa: SIM115  held open until finish() or close()
        self._handle.write(struct.pack("<Q", len(text)) + text)
        self._handle.truncate(8 + len(text) + end)
        self._targets = {
            name: _Target(8 + len(text) + offsets[name], tuple(shape), bytearray(shape[0] if shape else 1))
            for name, shape in shapes.items()
        }

    def write(self, name: str, row: int, values: torch.Tensor) -> None:
        """Write `values` `[rows, *tail]` as rows `row`... of tensor `name`. Raises ConversionError for a row written twice."""
        import torch

        target = self._targets[name]
        assert values.dtype == self.dtype and tuple(values.shape[1:]) == target.shape[1:], (name, values.dtype, values.shape)
        rows = values.shape[0]
        assert row >= 0 and row + rows <= target.shape[0], (name, row, rows, target.shape)
        if 1 in target.written[row : row + rows]:
            raise ConversionError(f"Rows {row} to {row + rows - 1} of {name!r} came twice. The checkpoint or the mapping table is wrong.")
        self._handle.seek(target.begin_byte + row * prod(target.shape[1:]) * self.dtype.itemsize)
        self._handle.write(values.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        target.written[row : row + rows] = b"\1" * rows

    def finish(self) -> None:
        """Close the file. Raises ConversionError naming tensors with rows that never came."""
        lacking = {name: target.written.count(0) for name, target in self._targets.items() if target.written.count(0)}
        if lacking:
            listed = ", ".join(f"{name} ({rows} of {self._targets[name].shape[0]} rows)" for name, rows in list(lacking.items())[:8])
            raise ConversionError(
                f"{len(lacking)} tensor(s) were not written completely: {listed}. The source lacks them; nothing was published."
            )
        self.close()

    def close(self) -> None:
        """Close the file without asking whether it is complete."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
