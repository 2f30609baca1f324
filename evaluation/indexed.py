"""Reads the documents of a Megatron indexed dataset (.bin/.idx) through memory maps, without Megatron.

Format: `_IndexWriter` of megatron/core/datasets/indexed_dataset.py (Megatron-Core 0.15). Writing is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemo_ext.common.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = np.dtype([("magic", "V9"), ("version", "<u8"), ("dtype", "u1"), ("sequences", "<u8"), ("documents", "<u8")])
TOKEN_DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


def read_documents(prefix: Path | str) -> Iterator[npt.NDArray[Any]]:
    """Token ids `[tokens]` of each document of `prefix`.bin/.idx, in order, as views into the file.

    Raises DataError when the files are missing, are no indexed dataset, or do not fit one another.
    """
    tokens, pointers, lengths, documents = _open(Path(f"{prefix}.idx"), Path(f"{prefix}.bin"))
    first_token = pointers // tokens.itemsize
    for first, last in zip(documents[:-1].tolist(), documents[1:].tolist(), strict=True):
        # The sequences of a document lie one behind the other in the file.
        if first == last:
            yield tokens[:0]
        else:
            yield tokens[first_token[first] : first_token[last - 1] + lengths[last - 1]]


def _open(index: Path, data: Path) -> tuple[npt.NDArray[Any], ...]:
    """Tokens, byte pointers and lengths of the sequences, and the sequence numbers at which documents start."""
    for file in (index, data):
        if not file.is_file():
            raise DataError(
                f"Dataset file {file} is missing. An indexed dataset is a pair of .bin and .idx files; restore it or prepare it again."
            )
    raw = np.memmap(index, dtype=np.uint8, mode="r")
    header = raw[: HEADER.itemsize].view(HEADER)[0] if raw.size >= HEADER.itemsize else None
    if header is None or header["magic"].tobytes() != MAGIC or header["version"] != VERSION or int(header["dtype"]) not in TOKEN_DTYPES:
        raise DataError(f"{index} is not the index of a Megatron token dataset (version {VERSION}). Prepare the dataset again.")
    sequences, documents = int(header["sequences"]), int(header["documents"])
    expected_bytes = HEADER.itemsize + 12 * sequences + 8 * documents
    if raw.size != expected_bytes:
        raise DataError(
            f"{index} is damaged: {raw.size:,} bytes found, {expected_bytes:,} expected. Restore it or prepare the dataset again."
        )
    lengths, pointers, starts = np.split(raw[HEADER.itemsize :], [4 * sequences, 12 * sequences])
    lengths, pointers, starts = lengths.view("<i4"), pointers.view("<i8"), starts.view("<i8")
    dtype = np.dtype(TOKEN_DTYPES[int(header["dtype"])])
    expected_bytes = int(lengths.sum(dtype=np.int64)) * dtype.itemsize
    if data.stat().st_size != expected_bytes:
        raise DataError(
            f"{data} is damaged: {data.stat().st_size:,} bytes found, {expected_bytes:,} expected. Restore it or prepare the dataset again."
        )
    tokens = np.memmap(data, dtype=dtype, mode="r") if expected_bytes else np.empty(0, dtype)
    return tokens, pointers, lengths, starts
