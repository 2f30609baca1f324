"""Lines of JSONL and text files, with the place of each (file:line) for messages; what the fields mean is left to the readers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nemo_ext.common.errors import DataError

SNIPPET_CHARACTERS = 80


@dataclass(frozen=True)
class Record:
    """One JSON object; `place` is file:line, `name` the same with the path below the folder that was read."""

    place: str
    name: str
    fields: dict[str, Any]

    @property
    def id(self) -> str:
        """The field `id`, or where there is none, or null, the name of the line."""
        value = self.fields.get("id")
        identity = self.name if value is None else str(value)
        byte_count(identity, self.place)
        return identity

    def text(self, name: str) -> str:
        """The field `name`, which must be text. Raises DataError with the place and what was found."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            found = f"{value!r} in it" if name in self.fields else f"the fields {', '.join(self.fields) or '(none)'}"
            raise DataError(f"{self.place} has no text in field {name!r} (found {found}). Expected a string; mend or remove the line.")
        byte_count(value, self.place)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """The field `name`, which must be a list of texts."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
            raise DataError(
                f"{self.place} has {str(value)[:SNIPPET_CHARACTERS]!r} in field {name!r}. "
                "Expected a list with at least one string; mend or remove the line."
            )
        for entry in value:
            byte_count(entry, self.place)
        return tuple(value)


def read_records(path: Path) -> Iterator[Record]:
    """The records of a JSONL file (.jsonl, .jsonl.gz), or of all of a folder, in the order of their names. Raises DataError."""
    for file in find_files(path, (".jsonl", ".jsonl.gz")):
        name = str(file.relative_to(path)) if file != path else file.name
        try:
            with open_binary(file) as handle:
                for number, line in enumerate(handle, 1):
                    if line.strip():
                        yield Record(f"{file}:{number}", f"{name}:{number}", parse_object(line, f"{file}:{number}"))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{file} is damaged ({error}). Fetch or compress it again.") from None


def find_files(path: Path, suffixes: Sequence[str], expected: str = "a file or folder of files") -> list[Path]:
    """`path`, or the files below it, with one of the endings; none that is hidden or in a hidden folder. DataError if there are none."""
    if path.is_file() and path.name.endswith(tuple(suffixes)):
        return [path]
    if not path.is_dir():
        found = f"has the ending {path.suffix!r}" if path.exists() else "does not exist"
        raise DataError(f"Data {path} {found}. Expected {expected} ending in {', '.join(suffixes)}.")
    named = (file for file in path.rglob("*") if file.name.endswith(tuple(suffixes)) and file.is_file())
    files = sorted(file for file in named if not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise DataError(f"{path} has nothing to read in it. Expected {expected} ending in {', '.join(suffixes)}.")
    return files


def open_binary(file: Path) -> BinaryIO:
    """The file's bytes, unpacked if its name ends in .gz."""
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def decode_utf8(content: bytes, place: str) -> str:
    """Text of bytes. Raises DataError naming the place."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 ({error}). Convert the file to UTF-8.") from None


def parse_object(line: bytes, place: str) -> dict[str, Any]:
    """The JSON object of a line. Raises DataError for anything else."""
    text = decode_utf8(line, place)
    snippet = text.strip()[:SNIPPET_CHARACTERS]
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is not valid JSON ({error.msg} at column {error.colno}): {snippet!r}. Mend or remove the line.") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{place} cannot be read ({error}): {snippet!r}. Mend or remove the line.") from None
    if not isinstance(found, dict):
        raise DataError(f"{place} holds {type(found).__name__}, expected a JSON object: {snippet!r}. Mend or remove the line.")
    return found


def byte_count(text: str, place: str) -> int:
    """Length in UTF-8. Raises DataError for a lone surrogate, which is no text."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place} has a lone surrogate, which is no text ({error.reason} at character {error.start}). Mend or remove it."
        ) from None
