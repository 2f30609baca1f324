"""Write Hugging Face safetensors in pieces: headers first, then rows as they come, in any order.

The memory needed is that of one piece, whatever the model's size. Every row is counted, so a checkpoint that lacks a row or got one
twice cannot be finished. The caller provides a folder that is published only when all is well (`atomic_folder`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.reader import ELEMENT_BYTES, INDEX_FILE, SINGLE_FILE

if TYPE_CHECKING:
    import torch

GIBIBYTE = 2**30
DTYPE_NAMES = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}


@dataclass
class _Target:
    """A tensor being written: its file, where it begins there, its shape, and which rows are there already."""

    file: str
    begin_byte: int
    shape: tuple[int, ...]
    written: bytearray


class SafetensorsWriter:
    """Writes tensors of one dtype into `folder`, as `model.safetensors` or as shards of at most `max_shard_bytes` with an index.

    shapes: name -> shape, in the order in which they are laid out. A tensor larger than a shard gets a shard of its own.
    Use as a context manager; call `finish` at the end.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype, max_shard_bytes: int = 5 * GIBIBYTE) -> None:
        if str(dtype) not in DTYPE_NAMES:
            raise ConversionError(f"Weights cannot be exported as {dtype}. Choose one of: {', '.join(DTYPE_NAMES)}.")
        self.folder, self.dtype = folder, dtype
        self._element_bytes = ELEMENT_BYTES[DTYPE_NAMES[str(dtype)]]
        self._files: dict[str, IO[bytes]] = {}
        self._targets: dict[str, _Target] = {}
        self.total_bytes = sum(prod(shape) for shape in shapes.values()) * self._element_bytes
        shards = self._shards(shapes, max_shard_bytes)
        for number, names in enumerate(shards, start=1):
            file = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            self._begin_file(file, {name: tuple(shapes[name]) for name in names})
        if len(shards) > 1:
            where = {name: target.file for name, target in sorted(self._targets.items())}
            index = {"metadata": {"total_size": self.total_bytes}, "weight_map": where}
            (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _shards(self, shapes: Mapping[str, Sequence[int]], max_shard_bytes: int) -> list[list[str]]:
        shards: list[list[str]] = [[]]
        size_bytes = 0
        for name, shape in shapes.items():
            tensor_bytes = prod(shape) * self._element_bytes
            if shards[-1] and size_bytes + tensor_bytes > max_shard_bytes:
                shards.append([])
                size_bytes = 0
            shards[-1].append(name)
            size_bytes += tensor_bytes
        return shards

    def _begin_file(self, file: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets, end = {}, 0
        for name, shape in shapes.items():
            offsets[name], end = end, end + prod(shape) * self._element_bytes
            header[name] = {"dtype": DTYPE_NAMES[str(self.dtype)], "shape": list(shape), "data_offsets": [offsets[name], end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format wants the data aligned to 8 bytes
        handle = open(self.folder / file, "w+b")  # noqa: SIM115  held open until finish() or close()
        self._files[file] = handle
        handle.write(struct.pack("<Q", len(text)) + text)
        handle.truncate(8 + len(text) + end)
        for name, shape in shapes.items():
            self._targets[name] = _Target(file, 8 + len(text) + offsets[name], shape, bytearray(shape[0] if shape else 1))

    def write(self, name: str, row: int, values: torch.Tensor) -> None:
        """Write `values` `[rows, *tail]` as rows `row`... of tensor `name`. Raises ConversionError for a row written twice."""
        import torch

        target = self._targets[name]
        assert values.dtype == self.dtype and tuple(values.shape[1:]) == target.shape[1:], (name, values.dtype, values.shape)
        rows = values.shape[0]
        assert row >= 0 and row + rows <= target.shape[0], (name, row, rows, target.shape)
        if 1 in target.written[row : row + rows]:
            raise ConversionError(f"Rows {row} to {row + rows - 1} of {name!r} came twice. The checkpoint or the mapping table is wrong.")
        handle = self._files[target.file]
        handle.seek(target.begin_byte + row * prod(target.shape[1:]) * self._element_bytes)
        handle.write(values.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        target.written[row : row + rows] = b"\1" * rows

    def finish(self) -> None:
        """Close all files. Raises ConversionError naming tensors with rows that never came."""
        lacking = {name: target.written.count(0) for name, target in self._targets.items() if target.written.count(0)}
        if lacking:
            listed = ", ".join(f"{name} ({rows} of {self._targets[name].shape[0]} rows)" for name, rows in list(lacking.items())[:8])
            raise ConversionError(
                f"{len(lacking)} tensor(s) were not written completely: {listed}. The source lacks them; nothing was published."
            )
        self.close()

    def close(self) -> None:
        """Close all files without asking whether they are complete."""
        for handle in self._files.values():
            handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
