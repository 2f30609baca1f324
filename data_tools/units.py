"""The inputs cut into work units: bounded parts that any process can encode alone, the same parts on every machine.

A plain file of JSON lines is cut by bytes: a part holds the lines that begin within it. Tables are cut between row groups, compressed
files and texts not at all. Parts are gathered, in order, until they are worth the name of a unit; a unit is done or not done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.inputs import FoundInputs, InputFile, open_input
from data_tools.lines import BATCH_BYTES, RawDocument
from data_tools.tables import row_group_bytes, rows_before, table_rows

UNIT_BYTES = 4 << 20  # a second of work, or some: little is lost when a process is killed, and workers end at about the same time
MOST_UNITS = 4096  # beyond that units grow instead, so that folders stay small
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """Bytes [start, end) of a file, or for tables its row groups [start, end). `size_bytes`: how much of the file that is, on disk."""

    file: int
    start: int
    end: int
    size_bytes: int


@dataclass(frozen=True)
class Unit:
    """Parts in the order of the inputs."""

    number: int
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.number:06d}"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of its parts."""
        return sum(part.size_bytes for part in self.parts)


def plan_units(inputs: FoundInputs) -> list[Unit]:
    """The units of all inputs. They depend on nothing but the order, kind and size of the files."""
    unit_bytes = max(UNIT_BYTES, inputs.size_bytes // MOST_UNITS)
    units: list[Unit] = []
    waiting: list[Part] = []
    for number, file in enumerate(inputs.files):
        for part in _parts(number, file, unit_bytes):
            waiting.append(part)
            if sum(part.size_bytes for part in waiting) >= unit_bytes:
                units.append(Unit(len(units), tuple(waiting)))
                waiting = []
    if waiting:
        units.append(Unit(len(units), tuple(waiting)))
    return units


def _parts(number: int, file: InputFile, unit_bytes: int) -> Iterator[Part]:
    if file.is_table:
        yield from _row_groups(number, row_group_bytes(file), unit_bytes)
    elif file.is_text or file.compression:
        yield Part(number, 0, file.size_bytes, file.size_bytes)
    else:
        for start in range(0, max(1, file.size_bytes), unit_bytes):
            end = min(start + unit_bytes, file.size_bytes)
            yield Part(number, start, end, end - start)


def _row_groups(number: int, sizes: list[int], unit_bytes: int) -> Iterator[Part]:
    if not sizes:
        yield Part(number, 0, 0, 0)  # a table without rows is an input like others
    start = size_bytes = 0
    for group, group_bytes in enumerate(sizes, start=1):
        size_bytes += group_bytes
        if size_bytes >= unit_bytes or group == len(sizes):
            yield Part(number, start, group, size_bytes)
            start, size_bytes = group, 0


class PartReader:
    """Lines, rows or the text of a part, without line ends. Lines count from 1 at the start of a file, and from 2 within it.

    Of a table only `columns` are read. `bytes_read` tells how much of the part, on disk, has been passed.
    """

    def __init__(self, file: InputFile, part: Part, columns: tuple[str, ...]) -> None:
        self._file, self._part, self._columns = file, part, columns
        self.bytes_read = 0

    def __iter__(self) -> Iterator[RawDocument]:
        """Raises DataError when a compressed file or a table is damaged."""
        raws = self._compressed() if self._file.compression else self._rows() if self._file.is_table else self._plain()
        first = 0 if self._file.is_text else 1 if self._part.start == 0 else 2
        for line, raw in enumerate(raws, start=first):
            yield RawDocument(self._part.file, line, raw)
        self.bytes_read = self._part.size_bytes

    def _compressed(self) -> Iterator[bytes]:
        with open_input(self._file) as (stream, counting):
            if self._file.is_text:
                yield stream.read()
                return
            for raw in split_lines(iter(lambda: stream.read(READ_BYTES), b""), 0, None):
                self.bytes_read = counting.bytes_read
                yield raw

    def _rows(self) -> Iterator[bytes]:
        for group in range(self._part.start, self._part.end):
            yield from table_rows(self._file, group, self._columns)
            self.bytes_read += self._part.size_bytes // (self._part.end - self._part.start)

    def _plain(self) -> Iterator[bytes]:
        if self._file.is_text:
            yield self._file.path.read_bytes()
            return
        for raw in _lines_between(self._file.path, self._part.start, self._part.end):
            self.bytes_read = min(self._part.size_bytes, self.bytes_read + len(raw) + 1)
            yield raw


def line_number(file: InputFile, part: Part, line: int) -> int:
    """The number in the whole file of a line that `PartReader` counted within a part. Reads what comes before it."""
    if line == 0 or part.start == 0:
        return line
    if file.is_table:
        return line - 1 + rows_before(file, part.start)
    before, left = 0, part.start - 1
    with open(file.path, "rb", buffering=0) as handle:
        while left and (block := handle.read(min(READ_BYTES, left))):
            before += block.count(b"\n")
            left -= len(block)
    return line + before


def _lines_between(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Lines that begin in bytes [start, end) of a file."""
    with open(path, "rb", buffering=0) as handle:
        descriptor = handle.fileno()
        first = _next_line(descriptor, start, end) if start else 0
        if first < end:
            handle.seek(first)
            yield from split_lines(iter(lambda: handle.read(READ_BYTES), b""), first, end)


def _next_line(descriptor: int, start: int, end: int) -> int:
    """Where the first line at or after byte `start` begins, or `end` when that is not before `end`."""
    position = start - 1
    while position < end:
        block = os.pread(descriptor, READ_BYTES, position)
        found = block.find(b"\n")
        if found >= 0:
            return position + found + 1
        position += len(block) or end
    return end


def split_lines(blocks: Iterator[bytes], position: int, end: int | None) -> Iterator[bytes]:
    """Lines without their newline, from blocks that begin at byte `position`, until a line begins at `end` or later.

    Only \\n ends a line: JSON strings may hold U+2028 and the like. A line that spans blocks is held once, not twice.
    """
    rest: Any = bytearray()
    for block in blocks:
        *lines, tail = block.split(b"\n")
        for line in lines:
            if rest:
                rest += line
                line, rest = rest if len(rest) > READ_BYTES else bytes(rest), bytearray()
            yield line
            position += len(line) + 1
            if end is not None and position >= end:
                return
        rest += tail
    if rest:
        yield rest if len(rest) > READ_BYTES else bytes(rest)


def batches(documents: Iterator[RawDocument]) -> Iterator[list[RawDocument]]:
    """Documents in groups of about BATCH_BYTES; one that is larger than that stands alone."""
    waiting: list[RawDocument] = []
    waiting_bytes = 0
    for document in documents:
        if waiting and waiting_bytes + len(document.raw) > BATCH_BYTES:
            yield waiting
            waiting, waiting_bytes = [], 0
        waiting.append(document)
        waiting_bytes += len(document.raw)
    if waiting:
        yield waiting
