"""Megatron's indexed dataset (.bin/.idx) written and read with NumPy alone, byte for byte what Megatron-Core 0.15.3 writes.

Format (megatron/core/datasets/indexed_dataset.py): the .bin holds the ids of all documents end to end; the .idx holds
"MMIDIDX\\0\\0", version 1 (u64), dtype code (u8), number of sequences (u64), number of document limits (u64), then lengths (i32),
byte offsets (i64) and document limits (i64). Document d has the sequences from limit d to limit d + 1: one, or one per sentence.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES: dict[np.dtype[Any], int] = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}  # of Megatron's eight, those that hold token ids
HEADER = struct.Struct("<9sQBQQ")


@dataclass(frozen=True)
class IndexedFiles:
    """What was written: counts, the largest id (-1 without tokens), sizes in bytes and SHA-256 digests."""

    documents: int
    tokens: int
    max_token_id: int
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str


class IndexedWriter(AbstractContextManager["IndexedWriter"]):
    """Streams documents into `prefix`.bin and writes `prefix`.idx at the end. Only lengths stay in memory (4 bytes a document).

    Not atomic: write into a folder that appears when it is complete.
    """

    def __init__(self, prefix: Path | str, dtype: np.dtype[Any]) -> None:
        self._prefix = str(prefix)
        self._dtype = np.dtype(dtype)
        self._bin = open(self._prefix + ".bin", "wb")  # noqa: SIM115  closed by __exit__ or finish
        self._digest = hashlib.sha256()
        self._lengths: list[NDArray[np.int32]] = []
        self._tokens, self._max_token_id = 0, -1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bin.close()

    def add(self, ids: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Append documents: flat `ids` [tokens] and `lengths` [documents]."""
        assert int(lengths.sum()) == len(ids), "lengths do not add up to the ids"
        stored = np.ascontiguousarray(ids, dtype=self._dtype)
        self._bin.write(stored.data)
        self._digest.update(stored.data)
        self._lengths.append(lengths.astype(np.int32))
        self._tokens += len(ids)
        self._max_token_id = max(self._max_token_id, int(ids.max()) if len(ids) else -1)

    def finish(self) -> IndexedFiles:
        """Close the .bin and write the .idx."""
        self._bin.close()
        documents = sum(map(len, self._lengths))
        index = write_index(Path(self._prefix + ".idx"), self._dtype, self._lengths)
        bin_bytes = self._tokens * self._dtype.itemsize
        return IndexedFiles(
            documents, self._tokens, self._max_token_id, bin_bytes, index.size_bytes, self._digest.hexdigest(), index.sha256
        )


class WrittenIndex(NamedTuple):
    """Size and SHA-256 of an .idx file."""

    size_bytes: int
    sha256: str


def write_index(
    path: Path, dtype: np.dtype[Any], lengths: Sequence[NDArray[np.int32]], sequences: Sequence[NDArray[np.int32]] | None = None
) -> WrittenIndex:
    """Write an .idx from the lengths of all sequences and the number of sequences of every document (None: one each), in pieces."""
    digest = hashlib.sha256()
    with open(path, "wb") as handle:
        for part in _index_parts(np.dtype(dtype), lengths, sequences):
            handle.write(part)
            digest.update(part)
        return WrittenIndex(handle.tell(), digest.hexdigest())


def _index_parts(
    dtype: np.dtype[Any], lengths: Sequence[NDArray[np.int32]], sequences: Sequence[NDArray[np.int32]] | None
) -> Iterator[bytes | memoryview]:
    of_documents = sequences if sequences is not None else [np.ones(len(part), np.int32) for part in lengths]
    documents = sum(map(len, of_documents))
    yield HEADER.pack(MAGIC, VERSION, DTYPE_CODES[dtype], sum(map(len, lengths)), documents + 1)
    for part in lengths:
        yield np.ascontiguousarray(part, np.int32).data
    for part, before, after in _running_sums(lengths):
        yield ((before + after - part) * dtype.itemsize).data  # where each sequence begins
    yield np.zeros(1, np.int64).data
    for _, before, after in _running_sums(of_documents):
        yield (before + after).data


def _running_sums(parts: Sequence[NDArray[np.int32]]) -> Iterator[tuple[NDArray[np.int32], int, NDArray[np.int64]]]:
    """Each part, the sum of all before it, and its own running sum."""
    before = 0
    for part in parts:
        sums = np.cumsum(part, dtype=np.int64)
        yield part, before, sums
        before += int(sums[-1]) if len(sums) else 0


class IndexedReader:
    """A .bin/.idx pair by memory map: `lengths` [sequences], document `limits` among them [documents + 1], and the ids of any sequence."""

    def __init__(self, prefix: Path | str) -> None:
        """Raises DataError when the files are missing, damaged or do not fit one another."""
        idx_path, bin_path = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
        for path in (idx_path, bin_path):
            if not path.is_file():
                raise DataError(f"{path} not found. An indexed dataset is a pair of .bin and .idx files; check the path.")
        index = np.memmap(idx_path, dtype=np.uint8, mode="r") if idx_path.stat().st_size >= HEADER.size else np.zeros(0, np.uint8)
        fields = HEADER.unpack(index[: HEADER.size].tobytes()) if len(index) else (b"", 0, 0, 0, 0)
        dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
        if fields[0] != MAGIC or fields[1] != VERSION or fields[2] not in dtypes:
            raise DataError(f"{idx_path} is not the index of a token dataset (header {fields[:3]}). Prepare the dataset again.")
        self.dtype, count = dtypes[fields[2]], fields[3]
        expected_bytes = HEADER.size + 12 * count + 8 * fields[4]
        if len(index) != expected_bytes:
            raise DataError(f"{idx_path} is damaged: {len(index):,} bytes found, {expected_bytes:,} expected. Prepare the dataset again.")
        self.lengths: NDArray[np.int32] = index[HEADER.size : HEADER.size + 4 * count].view(np.int32)
        self._pointers: NDArray[np.int64] = index[HEADER.size + 4 * count : HEADER.size + 12 * count].view(np.int64)
        self.limits: NDArray[np.int64] = index[HEADER.size + 12 * count :].view(np.int64)
        self._ids = self._open_ids(bin_path)

    def _open_ids(self, bin_path: Path) -> NDArray[Any]:
        found, expected = bin_path.stat().st_size, int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        if found != expected:
            raise DataError(f"{bin_path} is damaged: {found:,} bytes found, its index needs {expected:,}. Prepare the dataset again.")
        return np.memmap(bin_path, dtype=self.dtype, mode="r") if found else np.zeros(0, self.dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def sequence(self, index: int) -> NDArray[Any]:
        """Ids of one sequence, as a view into the file. A document is one, or one per sentence."""
        start = int(self._pointers[index]) // self.dtype.itemsize
        return self._ids[start : start + int(self.lengths[index])]

    def document_lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, [documents]."""
        return np.diff(np.concatenate(([0], np.cumsum(self.lengths, dtype=np.int64)))[self.limits])
