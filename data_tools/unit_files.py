"""The files of one finished work unit, which a merge puts end to end: ids and sequence lengths by split, document records, rejects.

They appear as one folder, whole or not at all, so a unit that is there is done.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data_tools.bad_lines import reject_record
from data_tools.documents import snippet
from data_tools.encode import RECORD, EncodedBatch, select_documents
from data_tools.splits import SPLIT_NAMES
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json

SUMMARY_FILE = "unit.json"
RECORDS_FILE = "documents"
REJECTS_FILE = "rejects"


class UnitWriter(AbstractContextManager["UnitWriter"]):
    """Streams encoded batches into the files of a unit; with folder None it only counts."""

    def __init__(self, folder: Path | None, dtype: np.dtype[Any]) -> None:
        self._folder, self._dtype = folder, dtype
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self._splits: dict[str, dict[str, int]] = {}
        self._skipped: Counter[str] = Counter()
        self._first_reject: dict[str, Any] | None = None
        self._records: list[NDArray[Any]] = []  # only without a folder

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, batch: EncodedBatch) -> None:
        """Append the documents and rejects of a batch."""
        self._skipped.update(batch.skipped)
        for record in map(reject_record, batch.rejects):
            self._skipped[record["reason"]] += 1
            self._first_reject = self._first_reject or record | {"raw": snippet(batch.rejects[0].source.raw)}
            self._write(REJECTS_FILE, json.dumps(record).encode("ascii") + b"\n")
        self._write(RECORDS_FILE, batch.records)
        if self._folder is None:
            self._records.append(batch.records)
        for position in np.unique(batch.records["split"]).tolist():
            records, sequences = select_documents(batch.records, batch.sequences, batch.records["split"] == position)
            counts = self._splits.setdefault(SPLIT_NAMES[position], {"documents": 0, "tokens": 0, "bytes": 0})
            counts["documents"] += len(records)
            counts["tokens"] += len(sequences.ids)
            counts["bytes"] += int(records["bytes"].sum())
            self._write(f"{SPLIT_NAMES[position]}.ids", np.ascontiguousarray(sequences.ids, dtype=self._dtype))
            self._write(f"{SPLIT_NAMES[position]}.lengths", sequences.lengths.astype(np.int32))

    def _write(self, name: str, data: bytes | NDArray[Any]) -> None:
        if self._folder is None or not len(data):
            return
        if name not in self._files:
            self._files[name] = self._stack.enter_context(open(self._folder / name, "wb"))  # noqa: SIM115  closed by finish or __exit__
        self._files[name].write(data if isinstance(data, bytes) else data.data)

    def finish(self, files: list[dict[str, Any]], counts: dict[str, dict[str, int]]) -> dict[str, Any]:
        """Close the files and write the summary, which is returned; without a folder it has the "records", too.

        `files`: what is to be known about the parts that were read. `counts` are added up as they are.
        """
        sizes = {name: handle.tell() for name, handle in sorted(self._files.items())}
        self._stack.close()
        summary = {
            "files": files,
            "splits": self._splits,
            "skipped": dict(self._skipped),
            "first_reject": self._first_reject,
            "sizes": sizes,
            **counts,
        }
        if self._folder is None:
            return summary | {"records": np.concatenate([np.zeros(0, RECORD), *self._records])}
        (self._folder / SUMMARY_FILE).write_text(json.dumps(summary), encoding="utf-8")
        return summary


class UnitFiles:
    """A finished unit, read back."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError when a file is missing or has another size than it was written with."""
        self._folder = folder
        self.summary: dict[str, Any] = read_json(folder / SUMMARY_FILE, "summary of a finished unit")
        for name, size_bytes in self.summary["sizes"].items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else -1
            if found != size_bytes:
                raise DataError(
                    f"{path} is damaged: {max(0, found):,} bytes found, {size_bytes:,} expected. Remove {folder} and prepare again."
                )

    def records(self) -> NDArray[Any]:
        """Records [documents] of RECORD, in the order of the inputs."""
        return self._array(RECORDS_FILE, RECORD)

    def lengths(self, split: str) -> NDArray[np.int32]:
        """Tokens of every sequence of a split."""
        return self._array(f"{split}.lengths", np.dtype(np.int32))

    def ids_path(self, split: str) -> Path:
        """The file with the ids of a split that the summary lists."""
        return self._folder / f"{split}.ids"

    def rejects(self) -> Iterator[dict[str, Any]]:
        """Records of the lines that held no document, `line` counted as `data_tools.units.PartReader` does."""
        if self.summary["first_reject"]:
            with open(self._folder / REJECTS_FILE, "rb") as handle:
                yield from map(json.loads, handle)

    def _array(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        return np.fromfile(self._folder / name, dtype=dtype) if name in self.summary["sizes"] else np.zeros(0, dtype)
