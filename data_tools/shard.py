"""Encoded batches to the token files of one folder, with everything counted. A dataset is one such shard at present.

Batches in the same order give the same bytes. The manifest and the atomic appearance of the folder are left to `data_tools.prepare`.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import EncodedBatch, EncodedSplit
from data_tools.indexed import IndexedWriter
from data_tools.splits import SPLIT_NAMES


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Writes {train,validation,test}.{bin,idx} into `folder`, each from its first document on; with None it only counts."""

    def __init__(self, folder: Path | None, dtype: np.dtype[Any]) -> None:
        self._folder, self._dtype = folder, dtype
        self._stack = ExitStack()
        self._writers: dict[str, IndexedWriter] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._numbers: list[NDArray[np.uint64]] = []

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, batch: EncodedBatch) -> None:
        """Append the documents of a batch."""
        for name, part in batch.splits.items():
            counts = self._counts.setdefault(name, {"documents": 0, "tokens": 0, "bytes": 0})
            counts["documents"] += len(part.lengths)
            counts["tokens"] += len(part.ids)
            counts["bytes"] += int(part.text_bytes.sum())
            self._numbers.append(part.numbers)
            self._write(name, part)

    def _write(self, name: str, part: EncodedSplit) -> None:
        if self._folder is None:
            return
        if name not in self._writers:
            self._writers[name] = self._stack.enter_context(IndexedWriter(self._folder / name, self._dtype))
        self._writers[name].add(part.ids, part.lengths)

    def duplicate_documents(self) -> int:
        """Documents whose id an earlier document had already (8 bytes of memory per document)."""
        numbers = np.concatenate(self._numbers) if self._numbers else np.zeros(0, np.uint64)
        return len(numbers) - len(np.unique(numbers))

    def finish(self) -> dict[str, dict[str, Any]]:
        """Complete the files; the manifest's entry of every split that has documents, train first."""
        entries: dict[str, dict[str, Any]] = {}
        for name in (name for name in SPLIT_NAMES if name in self._counts):
            entries[name] = dict(self._counts[name])
            if name in self._writers:
                entries[name] |= dataclasses.asdict(self._writers[name].finish())
        return entries
