"""Reads results.json files back, and compares two of them document by document when they measured the same texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.statistics import Bootstrap, FloatArray, Interval
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json, sha256_of_file

RESULTS_SCHEMA = "sibol.results/1"


@dataclass(frozen=True)
class StoredResults:
    """A results.json."""

    path: Path
    results: dict[str, Any]

    @property
    def documents(self) -> int:
        """How many documents were scored."""
        return int(self.results["data"]["documents"])

    def same_measurement(self, other: StoredResults) -> bool:
        """Whether both come from the same version of a suite, the same texts and the same rules of scoring."""
        return _measurement(self.results) == _measurement(other.results)


def _measurement(results: dict[str, Any]) -> tuple[Any, ...]:
    suite, data, settings = results["suite"], results["data"], results["settings"]
    return suite["name"], suite["version"], data["sha256"], settings["score_end_of_document"]


def read_results(path: Path | str) -> StoredResults:
    """Read a results.json. Raises DataError when it is missing, damaged or of another schema."""
    path = Path(path)
    results = read_json(path, "evaluation results")
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != RESULTS_SCHEMA:
        raise DataError(f"{path} has schema {schema!r}, expected {RESULTS_SCHEMA!r}. Write it again with `sibol evaluate`.")
    return StoredResults(path, results)


def paired_difference(first: StoredResults, second: StoredResults) -> Interval | None:
    """Bits per byte of `second` minus `first` on the same documents, with its interval; None when they measured different things.

    Raises DataError when a per-document file is missing or was altered.
    """
    if not first.same_measurement(second) or first.results["suite"]["name"] != "bits_per_byte":
        return None
    before, after = _bits_and_bytes(first), _bits_and_bytes(second)
    settings = second.results["settings"]
    columns = np.stack([after[:, 0], before[:, 0], after[:, 1]], axis=1)
    bootstrap = Bootstrap(columns, settings["resamples"], settings["confidence"], settings["seed"])
    return bootstrap.interval(lambda sums: (sums[..., 0] - sums[..., 1]) / sums[..., 2])


def _bits_and_bytes(stored: StoredResults) -> FloatArray:
    """`[documents, 2]` from the per-document file, in the order of the documents."""
    entry = stored.results["per_document"]
    path = stored.path.parent / entry["file"]
    if not path.is_file() or sha256_of_file(path) != entry["sha256"]:
        found = "was altered" if path.is_file() else "is missing"
        raise DataError(f"{path} {found}; {stored.path} names it with SHA-256 {entry['sha256']}. Run `sibol evaluate` again.")
    with path.open(encoding="utf-8") as handle:
        rows: Sequence[tuple[float, float]] = [(row["bits"], row["bytes"]) for row in map(json.loads, handle)]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
