"""The .bin and .idx of one split from the files of its units: ids are copied within the kernel, the index is computed from lengths."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data_tools.indexed import write_index
from data_tools.splits import SPLIT_NAMES
from data_tools.unit_files import UnitFiles

COPY_BYTES = 1 << 22
NO_KERNEL_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # across file systems, old kernels, some network disks


def write_split(
    units: Sequence[UnitFiles],
    records: Sequence[NDArray[Any]],
    kept: Sequence[NDArray[np.bool_]],
    name: str,
    dtype: np.dtype[Any],
    target: Path,
) -> dict[str, Any]:
    """Write `name`.bin and `name`.idx into `target` from the `kept` documents of all units; what the manifest says of the files."""
    lengths, sequences = [], []
    with open(target / f"{name}.bin", "wb") as handle:
        for unit, documents, mask in zip(units, records, kept, strict=True):
            in_split = documents["split"] == SPLIT_NAMES.index(name)
            if not (mask & in_split).any():
                continue
            documents, mask = documents[in_split], mask[in_split]
            lengths.append(unit.lengths(name)[np.repeat(mask, documents["sequences"])])
            sequences.append(documents["sequences"][mask])
            for start, end in _runs(documents["tokens"] * dtype.itemsize, mask):
                _copy(unit.ids_path(name), start, end, handle)
    index = write_index(target / f"{name}.idx", dtype, lengths, sequences)
    bin_bytes, max_token_id, bin_sha256 = _examine(target / f"{name}.bin", dtype)
    return {
        "max_token_id": max_token_id,
        "bin_bytes": bin_bytes,
        "idx_bytes": index.size_bytes,
        "bin_sha256": bin_sha256,
        "idx_sha256": index.sha256,
    }


def _runs(sizes: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Bytes [start, end) of every series of neighbouring documents that are kept, from the sizes of all."""
    ends = np.cumsum(sizes)
    change = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [(int(ends[first] - sizes[first]), int(ends[last - 1])) for first, last in zip(change[::2], change[1::2], strict=True)]


def _copy(source: Path, start: int, end: int, target: IO[bytes]) -> None:
    """Append bytes of a file to another within the kernel, or through a buffer where that cannot be done."""
    with open(source, "rb", buffering=0) as handle:
        handle.seek(start)
        left = end - start
        try:
            while left:
                left -= os.copy_file_range(handle.fileno(), target.fileno(), left)
        except OSError as error:
            if error.errno not in NO_KERNEL_COPY:
                raise
            while left:
                block = handle.read(min(COPY_BYTES, left))
                left -= len(block)
                target.write(block)
            target.flush()


def _examine(path: Path, dtype: np.dtype[Any]) -> tuple[int, int, str]:
    """Size, largest id (-1 without tokens) and SHA-256 of a finished .bin, read once."""
    digest, size_bytes, largest = hashlib.sha256(), 0, -1
    with open(path, "rb", buffering=0) as handle:
        while block := handle.read(COPY_BYTES):
            digest.update(block)
            size_bytes += len(block)
            largest = max(largest, int(np.frombuffer(block, dtype).max()))
    return size_bytes, largest, digest.hexdigest()
