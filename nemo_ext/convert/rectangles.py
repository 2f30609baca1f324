"""Read rectangles of matrices that lie in files, row after row, by plain `pread`: nothing is mapped, nothing else is read into memory.

Both kinds of weights are such files, Hugging Face's and Megatron's. What a file holds where is the readers' business.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BUFFER_BYTES = 4 * 2**20
WORTH_A_CALL_BYTES = 4096  # shorter parts of rows are cheaper read with the rows around them


@dataclass(frozen=True)
class StoredMatrix:
    """Rows of `row_elements` elements each, one after the other from `begin_byte` of `file`."""

    file: Path
    begin_byte: int
    row_elements: int
    dtype: torch.dtype


class Files:
    """Open files by path, for any number of threads. A file is opened when it is first read."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()

    def read_into(self, matrix: StoredMatrix, destination: torch.Tensor, row: int, column: int = 0) -> None:
        """Overwrite `destination` `[rows, ...]` with the rectangle that begins at [row, column] (in elements of a row).

        The values are converted to the destination's dtype. Raises OSError, or EOFError when the file ends before.
        """
        import torch

        if destination.numel() == 0:
            return
        rows, width = destination.shape[0], destination.numel() // destination.shape[0]
        itemsize = matrix.dtype.itemsize
        whole_rows = width == matrix.row_elements
        start = matrix.begin_byte + (row * matrix.row_elements + column) * itemsize
        descriptor = self._descriptor(matrix.file)
        if whole_rows and destination.dtype == matrix.dtype and destination.is_contiguous() and destination.device.type == "cpu":
            _read(descriptor, start, _bytes_of(destination))
            return
        apart = not whole_rows and width * itemsize >= WORTH_A_CALL_BYTES
        shift = 0 if whole_rows or apart else column
        row_elements = width if apart else matrix.row_elements
        step = max(1, BUFFER_BYTES // (row_elements * itemsize))
        buffer = torch.empty((min(step, rows), row_elements), dtype=matrix.dtype)
        for first, last in _steps(rows, step):
            part = buffer[: last - first]
            if apart:
                for index in range(first, last):
                    _read(descriptor, start + index * matrix.row_elements * itemsize, _bytes_of(part[index - first]))
            else:
                _read(descriptor, start + (first * matrix.row_elements - shift) * itemsize, _bytes_of(part))
            destination[first:last].copy_(part[:, shift : shift + width].reshape(destination[first:last].shape))

    def _descriptor(self, file: Path) -> int:
        with self._lock:
            if file not in self._descriptors:
                self._descriptors[file] = os.open(file, os.O_RDONLY)
            return self._descriptors[file]

    def close(self) -> None:
        """Close all files; they are opened again when they are read again."""
        with self._lock:
            for descriptor in self._descriptors.values():
                with suppress(OSError):  # at the interpreter's end it may be closed already
                    os.close(descriptor)
            self._descriptors.clear()

    def __del__(self) -> None:
        self.close()


def _steps(rows: int, step: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _bytes_of(values: torch.Tensor) -> memoryview:
    import torch

    return values.view(-1).view(torch.uint8).numpy().data


def _read(descriptor: int, begin_byte: int, target: memoryview) -> None:
    """Fill `target` from the file; Linux gives at most 2 GiB at a time."""
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], begin_byte + done)
        if count == 0:
            raise EOFError(f"the file ends {len(target) - done:,} bytes too early")
        done += count
