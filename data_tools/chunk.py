"""`sibol data chunk`: lines into N files of equal size, which one after the other are the input again, byte for byte.

Lines are not looked into. They are read twice, first to count them, so that memory does not grow with the input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.documents import BYTE_ORDER_MARK
from data_tools.inputs import FoundInputs, find_inputs
from data_tools.lines import LineReader
from data_tools.outputs import LineFile, claimed_folder, line_suffix
from nemo_ext.common.dataset import MANIFEST_NAME
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import write_json

CHUNKS_SCHEMA = "sibol.chunks/1"
MEASURES = ("lines", "bytes")
FEWEST_DIGITS = 4  # chunk_0001: names keep their order when sorted, however many chunks there are


@dataclass(frozen=True)
class ChunkOptions:
    """What to cut, into how many chunks, by `by` ("lines" or "bytes"). `compression` None: as the first input."""

    inputs: tuple[str, ...]
    out: Path
    chunks: int
    by: str = "lines"
    compression: str | None = None
    overwrite: bool = False


def chunk(options: ChunkOptions, on_bytes: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Write the folder `options.out` with chunk_0001.jsonl and so on, and a manifest, which is returned.

    By lines, chunks differ by at most one line; by bytes, chunk N has the lines that begin in the Nth part of the bytes.
    `on_bytes` hears how many bytes of text have been written.
    Raises ConfigError for options that make no sense, DataError for inputs that are damaged, or too few for so many chunks,
    OutputExistsError, DiskFullError.
    """
    if options.by not in MEASURES:
        raise ConfigError(f"--by {options.by!r} is not known. Choose one of: {', '.join(MEASURES)}.")
    if options.chunks < 1:
        raise ConfigError(f"--chunks {options.chunks}: at least 1 is needed.")
    inputs = find_inputs(options.inputs)
    suffix = line_suffix(inputs, options.compression)
    with claimed_folder(options.out, CHUNKS_SCHEMA, options.overwrite) as folder:
        manifest = _write(options, inputs, folder, suffix, on_bytes)
        write_json(folder / MANIFEST_NAME, manifest)
    return manifest


def _write(options: ChunkOptions, inputs: FoundInputs, folder: Path, suffix: str, on_bytes: Callable[[int], None]) -> dict[str, Any]:
    measure: Callable[[bytes], int] = len if options.by == "bytes" else lambda line: 1
    total = sum(map(measure, _lines(LineReader(inputs))))
    reader, position = LineReader(inputs), 0
    with _ChunkWriter(folder, suffix, options.chunks) as writer:
        for line in _lines(reader):
            writer.write(line, position * options.chunks // total)
            position += measure(line)
            on_bytes(writer.text_bytes)
        entries = writer.finish()
    if position != total:
        raise DataError(f"The input changed while it was read: {total:,} {options.by} at first, then {position:,}. Run again.")
    if len(entries) < options.chunks:
        raise _too_few(len(entries), options, total)
    return {
        "schema": CHUNKS_SCHEMA,
        "by": options.by,
        "inputs": reader.digests,
        "text": {"bytes": writer.text_bytes, "sha256": writer.digest.hexdigest()},
        "chunks": entries,
    }


def _too_few(found: int, options: ChunkOptions, total: int) -> DataError:
    if options.by == "lines":
        return DataError(f"The input has {total:,} lines, too few for {options.chunks} chunks. Ask for fewer --chunks.")
    return DataError(
        f"The input fills only {found} of {options.chunks} chunks, because a line is longer than a chunk would be. "
        "Ask for fewer --chunks, or cut --by lines."
    )


def _lines(reader: LineReader) -> Iterator[bytes]:
    """All lines as they are, but where one file follows another: no byte order mark there, and no line that runs into the next."""
    previous = b""
    for batch in reader:
        for source in batch.documents:
            if previous:
                yield previous if previous.endswith(b"\n") else previous + b"\n"
            previous = source.raw.removeprefix(BYTE_ORDER_MARK) if source.file and source.line == 1 else source.raw
    if previous:
        yield previous


class _ChunkWriter(AbstractContextManager["_ChunkWriter"]):
    """One open chunk after the other; `digest` and `text_bytes` are of all lines together."""

    def __init__(self, folder: Path, suffix: str, chunks: int) -> None:
        self._folder, self._suffix, self._digits = folder, suffix, max(FEWEST_DIGITS, len(str(chunks)))
        self._open: LineFile | None = None
        self._number = -1
        self._entries: list[dict[str, Any]] = []
        self.digest, self.text_bytes = hashlib.sha256(), 0

    def __exit__(self, *error: object) -> None:
        if self._open is not None:
            self._open.__exit__(*error)

    def write(self, line: bytes, number: int) -> None:
        """Append a line to chunk `number`, counted from 0."""
        if number != self._number or self._open is None:
            self.finish()
            self._number = number
            self._open = LineFile(self._folder / f"chunk_{number + 1:0{self._digits}}{self._suffix}")
        self._open.write(line)
        self.digest.update(line)
        self.text_bytes += len(line)

    def finish(self) -> list[dict[str, Any]]:
        """Close the chunk that is open; the manifest's entries of all chunks so far."""
        if self._open is not None:
            self._entries.append(self._open.finish())
            self._open = None
        return self._entries
