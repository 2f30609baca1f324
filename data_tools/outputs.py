"""Lines of text into files: plain, .gz or .zst by name, counted and hashed on the way; and folders of such files that appear whole.

The same lines give the same bytes, compressed or not. What the lines are is left to the callers.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_tools.documents import BYTE_ORDER_MARK
from data_tools.inputs import FoundInputs
from data_tools.leftovers import claim, release, remove_leftovers
from data_tools.lines import RawDocument
from nemo_ext.common.dataset import MANIFEST_NAME
from nemo_ext.common.errors import ConfigError, OutputExistsError
from nemo_ext.common.files import atomic_folder, read_json, refuse_existing

COMPRESSIONS = {"none": "", "gz": ".gz", "zst": ".zst"}
ZSTD_LEVEL = 3  # the library's own default
GZIP_LEVEL = 6  # that of gzip(1)
SKIP_BYTES = 1 << 20


class HashingWriter:
    """Bytes into an open file, with their number and SHA-256."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._digest = raw, hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Pass `data` on."""
        self._raw.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)
        return len(data)

    def skip(self, count: int) -> None:
        """Take up to `count` bytes that the file, open for reading too, has already, as if they were written now."""
        while count > 0 and (data := self._raw.read(min(count, SKIP_BYTES))):
            self._digest.update(data)
            self.size_bytes += len(data)
            count -= len(data)

    def flush(self) -> None:
        """Pass on what the file holds back."""
        self._raw.flush()

    def sha256(self) -> str:
        """Hex digest of everything written so far."""
        return self._digest.hexdigest()


def compressing(raw: HashingWriter, path: Path) -> contextlib.AbstractContextManager[Any]:
    """A writer into `raw` that compresses as the name of `path` says; closing it ends the gzip member or zstd frame, not the file."""
    if path.suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(raw, closefd=False)  # type: ignore[arg-type]
    return contextlib.nullcontext(raw)


class LineFile(contextlib.AbstractContextManager["LineFile"]):
    """Writes lines into `path`, which is not atomic by itself."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.text_bytes = path, 0, 0
        self._stack = contextlib.ExitStack()
        raw = self._stack.enter_context(open(path, "wb"))  # noqa: SIM115  closed by the stack
        self._file = HashingWriter(raw)
        self._stream = self._stack.enter_context(compressing(self._file, path))

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, line: bytes) -> None:
        """Append one line with its line end."""
        self._stream.write(line)
        self.lines += 1
        self.text_bytes += len(line)

    def finish(self) -> dict[str, Any]:
        """Close the file; its name, lines, bytes of text, and bytes and SHA-256 as it lies on disk, for a manifest."""
        self._stack.close()
        return {
            "name": self.path.name,
            "lines": self.lines,
            "text_bytes": self.text_bytes,
            "bytes": self._file.size_bytes,
            "sha256": self._file.sha256(),
        }


def whole_line(source: RawDocument) -> bytes:
    """A line as it can stand anywhere in a file: without a byte order mark, and with a line end."""
    raw = source.raw.removeprefix(BYTE_ORDER_MARK) if source.line == 1 else source.raw
    return raw if raw.endswith(b"\n") else raw + b"\n"


def line_suffix(inputs: FoundInputs, compression: str | None) -> str:
    """What follows the stem of an output's name: ".jsonl", compressed as asked for, or else as the first input is.

    Raises ConfigError for an unknown compression, and for inputs that are no lines.
    """
    if compression is not None and compression not in COMPRESSIONS:
        raise ConfigError(f"--compression {compression!r} is not known. Choose one of: {', '.join(COMPRESSIONS)}.")
    for file in inputs.files:
        if file.is_text:
            raise ConfigError(f"Input {file.path} has no lines of JSON. Expected .jsonl or .ndjson, plain or with .gz or .zst.")
    return ".jsonl" + (COMPRESSIONS[compression] if compression is not None else inputs.files[0].compression)


@contextlib.contextmanager
def claimed_folder(out: Path, schema: str, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that becomes `out` at the end; what killed processes left of earlier tries is removed.

    Raises OutputExistsError when `out` is taken, with `overwrite` unless it is of the same kind: its manifest has `schema`.
    """
    refuse_other(out, schema, overwrite)
    remove_leftovers(out)
    with atomic_folder(out, overwrite) as folder:
        claim(folder)
        yield folder
        release(folder)


def refuse_other(out: Path, schema: str, overwrite: bool) -> None:
    """Only a folder with a manifest of this schema is ever replaced: --overwrite must not remove somebody's data."""
    refuse_existing(out, overwrite)
    taken = out.is_file() or (out.is_dir() and any(out.iterdir()))
    manifest = out / MANIFEST_NAME
    if taken and not (manifest.is_file() and read_json(manifest, "manifest").get("schema") == schema):
        raise OutputExistsError(f"{out} was not written by this command, so --overwrite does not replace it. Choose another place.")
