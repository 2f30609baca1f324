"""`sibol data download`: a Hugging Face dataset, from the Hub or a local folder, as one file of JSON lines. Rows are streamed.

What has arrived lies in a hidden folder beside the output, and the same command goes on from there. Since it is compressed piece by
piece, in pieces of a fixed size, a download that was interrupted gives the same bytes as one that was not.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_tools.hub import HubRows, HubSource, open_rows, resolve_revision
from data_tools.inputs import COMPRESSIONS, LINE_FORMATS
from data_tools.outputs import HashingWriter, compressing
from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError
from nemo_ext.common.files import PARTIAL_SUFFIX, disk_errors, read_json, refuse_existing, sync_folder, write_json

DOWNLOAD_SCHEMA = "sibol.download/1"
PIECE_BYTES = 16 << 20  # of text: at most this much is fetched again after an interruption


@dataclass(frozen=True)
class DownloadOptions:
    """What to fetch and where to. `rows`: only the first so many."""

    source: HubSource
    out: Path
    rows: int | None = None
    overwrite: bool = False
    piece_bytes: int = PIECE_BYTES


@dataclass
class _State:
    """What is in the unfinished file, as of the last complete piece. `position` is where the stream of rows goes on."""

    request: dict[str, Any]
    revision: str
    rows: int = 0
    text_bytes: int = 0
    file_bytes: int = 0
    sha256: str = ""
    position: dict[str, Any] | None = None


def download(options: DownloadOptions, on_rows: Callable[[int, int | None], None] = lambda rows, total: None) -> dict[str, Any]:
    """Write the file `options.out` and NAME.manifest.json beside it; returns the manifest.

    `on_rows` hears the rows so far and, if it is known, how many there will be.
    Raises ConfigError for options that make no sense, DataError when the dataset cannot be read, or what has arrived was altered,
    OutputExistsError, DiskFullError.
    """
    _check(options)
    refuse_existing(options.out, options.overwrite)
    folder = options.out.with_name(f".{options.out.name}.download{PARTIAL_SUFFIX}")
    with disk_errors(options.out):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "rows", options.out) as file:
            try:
                manifest = _complete(file, folder, options, on_rows)
                write_json(manifest_path(options.out), manifest)
                os.replace(folder / "rows", options.out)
                sync_folder(options.out.parent)
                (folder / "state.json").unlink()
            finally:
                if not (folder / "state.json").exists():  # nothing has arrived, or all of it
                    shutil.rmtree(folder)
    return manifest


def _complete(file: IO[bytes], folder: Path, options: DownloadOptions, on_rows: Callable[[int, int | None], None]) -> dict[str, Any]:
    """Bring the unfinished file to its end, noting the state after every piece; returns the manifest."""
    state = _load_state(folder, options)
    writer = _continue_file(file, state, folder)
    for _ in _fetch(options, state, writer, on_rows):
        writer.flush()
        os.fsync(file.fileno())
        state.file_bytes, state.sha256 = writer.size_bytes, writer.sha256()
        write_json(folder / "state.json", dataclasses.asdict(state))
    if state.rows == 0:
        raise DataError(f"{options.source.repo} has no rows in split {options.source.split!r}. Check the split and the folder.")
    return _manifest(options, state)


def manifest_path(out: Path) -> Path:
    """Where the manifest of a downloaded file lies: beside it."""
    return out.with_name(f"{out.name}.manifest.json")


def _check(options: DownloadOptions) -> None:
    name = options.out.name.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    if not name.endswith(LINE_FORMATS):
        raise ConfigError(f"--out {options.out}: expected a name that ends in .jsonl, .jsonl.gz or .jsonl.zst.")
    if options.out.is_dir():
        raise OutputExistsError(f"--out {options.out} is a folder, but one file is written. Name the file.")
    if options.rows is not None and options.rows < 1:
        raise ConfigError(f"--rows {options.rows}: at least 1 is needed. Leave it out to fetch all.")


@contextmanager
def _locked(path: Path, out: Path) -> Iterator[IO[bytes]]:
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputExistsError(f"Another process is downloading {out}. Wait for it, or choose another --out.") from None
        yield file


def _load_state(folder: Path, options: DownloadOptions) -> _State:
    """The state to go on from: that of an earlier try for the same request, pinned to the revision it began with."""
    request = {**dataclasses.asdict(options.source), "rows": options.rows, "piece_bytes": options.piece_bytes}
    if not (folder / "state.json").is_file():
        return _State(request, resolve_revision(options.source))
    state = _State(**read_json(folder / "state.json", "state of a download"))
    if state.request != json.loads(json.dumps(request)):
        raise OutputExistsError(
            f"{folder} has {state.rows:,} rows of an unfinished download with other options ({state.request}). "
            "Finish it with those, remove that folder, or choose another --out."
        )
    if Path(options.source.repo).is_dir() and (found := resolve_revision(options.source)) != state.revision:
        raise DataError(
            f"{options.source.repo} changed since {state.rows:,} of its rows were fetched ({found}). Remove {folder}, run again."
        )
    return state


def _continue_file(file: IO[bytes], state: _State, folder: Path) -> HashingWriter:
    """The file cut back to its last complete piece, whose contents are verified."""
    file.seek(0)
    writer = HashingWriter(file)
    writer.skip(state.file_bytes)
    if state.file_bytes and writer.sha256() != state.sha256:
        raise DataError(f"{folder / 'rows'} is not what was written ({state.file_bytes:,} bytes expected). Remove {folder}, run again.")
    file.truncate(state.file_bytes)
    return writer


def _fetch(options: DownloadOptions, state: _State, writer: HashingWriter, on_rows: Callable[[int, int | None], None]) -> Iterator[None]:
    """Write rows from `state` on, which is brought up to date; yields after every complete piece."""
    rows = open_rows(options.source, state.revision, state.position)
    expected = rows.count if options.rows is None else options.rows
    while options.rows is None or state.rows < options.rows:
        written = state.text_bytes
        with compressing(writer, options.out) as stream:
            for line in _piece(rows, options, state):
                stream.write(line)
                on_rows(state.rows, expected)
        if state.text_bytes == written:
            return
        state.position = rows.position()
        yield


def _piece(rows: HubRows, options: DownloadOptions, state: _State) -> Iterator[bytes]:
    begin = state.text_bytes
    while state.text_bytes - begin < options.piece_bytes and state.rows != options.rows and (row := rows.next_row()) is not None:
        line = _line(row, state.rows, options.source)
        state.rows += 1
        state.text_bytes += len(line)
        yield line


def _line(row: dict[str, Any], number: int, source: HubSource) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Row {number} of {source.repo} cannot be written as JSON ({error}). Its fields: {', '.join(row)}. "
            "Choose those that hold text and numbers with --fields."
        ) from None


def _manifest(options: DownloadOptions, state: _State) -> dict[str, Any]:
    return {
        "schema": DOWNLOAD_SCHEMA,
        "source": dataclasses.asdict(options.source) | {"revision": state.revision},
        "rows": state.rows,
        "text_bytes": state.text_bytes,
        "file": {"name": options.out.name, "bytes": state.file_bytes, "sha256": state.sha256},
    }
