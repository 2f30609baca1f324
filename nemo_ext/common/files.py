"""Files that are complete or invisible, and the fingerprints that tell one content from another.

A file or folder is written under a temporary name beside its destination, synced and renamed. What a killed process
leaves behind starts with a dot and ends with `.partial`, and no reader looks at such names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nemo_ext.common.errors import DataError, DiskFullError, OutputExistsError

PARTIAL_SUFFIX = ".partial"


def partial_path(path: Path) -> Path:
    """The temporary name under which `path` is written by this process."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' into a `DiskFullError` that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"No space left while writing {path}. Nothing incomplete was left under its final name. "
                "Free some space or choose another output folder, then run the same command again."
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flush the directory entry changes of `folder` to disk (a rename is durable only after this)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` when the block ends without an error, and is removed otherwise.

    `mode` is "w" (UTF-8 text) or "wb". Raises DiskFullError when the file system is full.
    """
    path = Path(path)
    temporary = partial_path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends without an error, and is removed otherwise.

    Raises OutputExistsError when `path` exists and `overwrite` is false, DiskFullError when the file system is full.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    temporary = partial_path(path)
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            publish_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Give a finished folder its name, in place of what may be there, with everything on disk before and after."""
    sync_tree(temporary)
    if path.exists():
        retired = path.with_name(f".{path.name}.{os.getpid()}.old{PARTIAL_SUFFIX}")
        os.replace(path, retired)
        os.replace(temporary, path)
        shutil.rmtree(retired)
    else:
        os.replace(temporary, path)
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))


def refuse_existing(path: Path | str, overwrite: bool = False) -> None:
    """Raise OutputExistsError when `path` exists (an empty folder counts as free) and `overwrite` is false."""
    path = Path(path)
    if overwrite or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise OutputExistsError(f"{path} already exists. Choose another place, or pass --overwrite to replace it.")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN and infinity are refused, because JSON has neither."""
    with atomic_file(path) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False, allow_nan=False)
        handle.write("\n")


def read_json(path: Path | str, what: str = "file") -> Any:
    """Read a JSON file. Raises DataError naming the file, the line and `what` it should have been."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} not found: {path}. Check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path} is not valid JSON ({error}). Write it again or restore a copy.") from None


def sha256_of_file(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces): equal values, equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
