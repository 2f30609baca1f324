"""Which files a command reads, and their bytes: plain, .gz or .zst, hashed on the way.

What the bytes mean (lines, documents) is left to `data_tools.lines`.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nemo_ext.common.dataset import MANIFEST_NAME
from nemo_ext.common.errors import DataError, VersionError

LINE_FORMATS = (".jsonl", ".ndjson")
TEXT_FORMATS = (".txt",)
TABLE_FORMATS = (".parquet",)
COMPRESSIONS = (".gz", ".zst")
READ_BYTES = 1 << 16
IGNORED_FILE = "file-of-another-kind"
DATASET_FILE = "file-of-a-prepared-dataset"  # its tokenizer and quarantine look like inputs


@dataclass(frozen=True)
class InputFile:
    """One file to read. `is_text`: the whole file is one document; `is_table`: every row is one; otherwise every line is a JSON object."""

    path: Path
    is_text: bool
    compression: str
    size_bytes: int
    is_table: bool = False


@dataclass(frozen=True)
class FoundInputs:
    """Files in the order in which they are read, and how many others lay in the folders."""

    files: tuple[InputFile, ...]
    skipped: Counter[str]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of all files."""
        return sum(file.size_bytes for file in self.files)


def find_inputs(arguments: Sequence[str], tables: bool = False) -> FoundInputs:
    """Files behind paths, glob patterns (`**` included) and folders, in the order given and sorted within each.

    Of a folder, all .jsonl, .ndjson and .txt files below it are taken, also as .gz or .zst; others, and what belongs to a prepared
    dataset in there, are counted, and names that start with a dot are passed over. With `tables`, .parquet files are taken, too.
    Raises DataError for an argument that matches nothing, a named file of another kind, and a file that is named twice.
    """
    files: dict[Path, InputFile] = {}
    skipped: Counter[str] = Counter()
    for argument in arguments:
        for path, reason_to_skip in _expand(argument, tables):
            if reason_to_skip:
                skipped[reason_to_skip] += 1
            elif (found := _classify(path, tables)) is None:
                expected = f".jsonl, .ndjson or .txt, plain or with .gz or .zst{', or .parquet' if tables else ''}"
                raise DataError(f"Input {path} is of an unknown kind. Expected {expected}.")
            elif (key := path.resolve()) in files:
                raise DataError(f"Input {path} is named twice (also as {files[key].path}). Its documents would count double; name it once.")
            else:
                files[key] = found
    if not files:
        raise DataError(f"No input files in {', '.join(arguments) or '(nothing named)'}. Expected .jsonl, .ndjson or .txt files.")
    return FoundInputs(tuple(files.values()), skipped)


def _expand(argument: str, tables: bool) -> Iterator[tuple[Path, str]]:
    """Files behind one argument, each with the reason to skip it or ""."""
    path = Path(argument)
    if path.is_dir():
        yield from _walk(path, tables)
    elif path.exists():
        yield path, ""
    elif matches := sorted(glob.glob(argument, recursive=True)):
        yield from _matched(map(Path, matches), tables)
    else:
        kind = "No file matches the pattern" if glob.has_magic(argument) else "Input not found:"
        raise DataError(f"{kind} {argument}. Expected a file, a folder or a glob pattern; check the path.")


def _matched(matches: Iterable[Path], tables: bool) -> Iterator[tuple[Path, str]]:
    """What a pattern stands for: the files it matches, and those of folders it matches, each once (`**` matches both)."""
    found: dict[Path, str] = {}
    for match in matches:
        entries = _walk(match, tables) if match.is_dir() else [(match, "")] if match.is_file() else []
        for path, reason_to_skip in entries:
            found.setdefault(path, reason_to_skip)
    yield from found.items()


def _walk(folder: Path, tables: bool) -> Iterator[tuple[Path, str]]:
    inner = [path for path in sorted(folder.rglob("*")) if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    datasets = {path.parent for path in inner if path.name == MANIFEST_NAME and (path.parent / "train.idx").exists()}
    for path in inner:
        if path.is_file():
            in_dataset = not datasets.isdisjoint(path.parents)
            yield path, DATASET_FILE if in_dataset else "" if _classify(path, tables) else IGNORED_FILE


def _classify(path: Path, tables: bool) -> InputFile | None:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    kind = suffixes[-1] if suffixes else ""
    is_table = tables and kind in TABLE_FORMATS and not compression
    if not is_table and kind not in (*LINE_FORMATS, *TEXT_FORMATS):
        return None
    return InputFile(path, kind in TEXT_FORMATS, compression, path.stat().st_size, is_table)


class HashingReader(io.RawIOBase):
    """Raw bytes of a file, with their number so far and their SHA-256."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._digest = hashlib.sha256()
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._digest.update(memoryview(buffer)[:count])
        self.bytes_read += count
        return count

    def sha256(self) -> str:
        """Hex digest of the whole file: what a decompressor left unread at the end is read first."""
        while self.read(READ_BYTES):
            pass
        return self._digest.hexdigest()


class ZstdReader(io.RawIOBase):
    """Decompressed bytes of .zst frames; a file that ends within a frame is an error (the library's own stream reader just ends)."""

    def __init__(self, source: io.RawIOBase, decompressor: Any) -> None:
        super().__init__()
        self._source, self._decompressor = source, decompressor
        self._frame: Any = None
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            chunk = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            if not chunk and not (chunk := self._source.read(READ_BYTES) or b""):
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("the file ends within a compressed frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._pending = self._frame.decompress(chunk)
        count = min(len(buffer), len(self._pending))
        buffer[:count], self._pending = self._pending[:count], self._pending[count:]
        return count


@contextlib.contextmanager
def open_input(file: InputFile) -> Iterator[tuple[IO[bytes], HashingReader]]:
    """The decompressed bytes of a file, and the reader that counts and hashes what lies on disk.

    Raises DataError when a compressed file is damaged, VersionError when .zst cannot be read here.
    """
    damaged: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
    with open(file.path, "rb", buffering=0) as raw:
        counting = HashingReader(raw)
        stream: Any = counting
        if file.compression == ".gz":
            stream = gzip.GzipFile(fileobj=counting)
        elif file.compression == ".zst":
            zstandard = _zstandard(file.path)
            stream = ZstdReader(counting, zstandard.ZstdDecompressor())
            damaged = (*damaged, zstandard.ZstdError)
        try:
            yield io.BufferedReader(stream, READ_BYTES), counting
        except damaged as error:
            place = f"Input {file.path} is damaged after {counting.bytes_read:,} of its {file.size_bytes:,} bytes"
            raise DataError(f"{place} ({error}). Fetch or compress it again.") from None


def _zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise VersionError(f"Reading {path} needs the package zstandard, which is not installed. Run `pip install zstandard`.") from None
    return zstandard
