"""Input files as batches of undigested documents: one line of JSON each, or one whole text file. Bounded memory by bytes.

Reading goes on in one process, in order; what the bytes mean is left to `data_tools.documents`, which runs in the workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_tools.inputs import FoundInputs, InputFile, open_input

BATCH_BYTES = 1 << 20  # large enough to hide the cost of passing a batch to a worker, small enough to keep many in memory


class RawDocument(NamedTuple):
    """Bytes of one document as they lie in the file. `line` counts from 1; 0 means the whole file."""

    file: int
    line: int
    raw: bytes


@dataclass(frozen=True)
class RawBatch:
    """Documents in order, and how many bytes of the files on disk had been read when the batch was complete."""

    documents: list[RawDocument]
    bytes_read: int


class LineReader:
    """Iterates over the batches of all files; `digests` holds path, bytes and SHA-256 of every file that was read to its end."""

    def __init__(self, inputs: FoundInputs) -> None:
        self._inputs = inputs
        self.digests: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[RawBatch]:
        self.digests.clear()
        waiting: list[RawDocument] = []
        waiting_bytes = finished_bytes = 0
        for number, file in enumerate(self._inputs.files):
            with open_input(file) as (stream, counting):
                for line, raw in _pieces(file, stream):
                    waiting.append(RawDocument(number, line, raw))
                    waiting_bytes += len(raw)
                    if waiting_bytes >= BATCH_BYTES:
                        yield RawBatch(waiting, finished_bytes + counting.bytes_read)
                        waiting, waiting_bytes = [], 0
                sha256 = counting.sha256()  # reads to the very end, so it comes before the count
                self.digests.append({"path": str(file.path), "bytes": counting.bytes_read, "sha256": sha256})
                finished_bytes += counting.bytes_read
        if waiting:
            yield RawBatch(waiting, finished_bytes)


def _pieces(file: InputFile, stream: Any) -> Iterator[tuple[int, bytes]]:
    if file.is_text:
        yield 0, stream.read()
    else:
        yield from enumerate(stream, start=1)  # only \n ends a line: JSON strings may hold U+2028 and the like
