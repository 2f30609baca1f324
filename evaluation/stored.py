"""Reads results.json files back, with the score of every item, so that models can be compared item by item."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evaluation.statistics import FloatArray
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json, sha256_of_file

RESULTS_SCHEMA = "sibol.results/1"
Part = Literal["model", "baseline"]
# Settings that may differ between results without making them another measurement; `evaluation.compare` names those that differ.
FREE_SETTINGS = ("batch_size", "context_tokens", "stride_tokens", "resamples", "confidence", "seed")
FREE_OPTIONS = ("labels", "add_prefix_space")  # what fits the names and words of the data to one model: another needs others


class NoItemScoresError(DataError):
    """The figures of results.json stand alone: the file with the scores of the items is not there, or its lines have none."""


@dataclass(frozen=True)
class ItemScores:
    """Scores of one model, item by item: the figure of the whole is the sum of `scores` over the sum of `weights`.

    Bits per byte: bits and bytes of a document. Any other suite: the item's score (1 is right) and 1.
    `categories` and `clusters` (what items have in common that are not independent of one another) are "" for items that have none.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    scores: FloatArray
    weights: FloatArray
    clusters: tuple[str, ...]


@dataclass(frozen=True)
class StoredResults:
    """A results.json and the SHA-256 of its bytes."""

    path: Path
    results: dict[str, Any]
    sha256: str

    @property
    def documents(self) -> int:
        """How many documents or items were scored."""
        return int(self.results["data"]["documents"])

    @property
    def rows_path(self) -> Path:
        """The file with one line per item."""
        return self.path.parent / str(self.results["per_document"]["file"])

    def measurement(self) -> dict[str, Any]:
        """Suite, version, texts and rules of scoring: what two results must share to be compared."""
        suite, data, settings = self.results["suite"], self.results["data"], self.results["settings"]
        rules = {f"settings.{name}": value for name, value in settings.items() if name not in (*FREE_SETTINGS, "options")}
        rules |= {f"settings.{name}": value for name, value in settings.get("options", {}).items() if name not in FREE_OPTIONS}
        ignored = ("settings.split", "settings.text_field")  # where the texts were read; what was read is in their digest
        rules = {name: value for name, value in rules.items() if name not in ignored}
        return {"suite": suite["name"], "suite version": suite["version"], "data sha256": data["sha256"], **rules}

    def items(self, part: Part = "model") -> ItemScores:
        """Scores of the model or of the baseline. Raises DataError when the file was altered, NoItemScoresError when there are none."""
        entry, path = self.results["per_document"], self.rows_path
        named = f"{self.path} names it with SHA-256 {entry['sha256']}. Run `sibol evaluate` again."
        if not path.is_file():
            raise NoItemScoresError(f"{path} is missing; {named}")
        if sha256_of_file(path) != entry["sha256"]:
            raise DataError(f"{path} was altered; {named}")
        with path.open(encoding="utf-8") as handle:
            rows = [json.loads(line) for line in handle]
        prefix = "" if part == "model" else "baseline_"
        scored = [_score(row, prefix, path, number) for number, row in enumerate(rows, 1)]
        table = np.array(scored, dtype=np.float64).reshape(-1, 2)
        categories = tuple(str(row.get("category", row.get("domain")) or "") for row in rows)
        clusters = tuple(str(row.get("cluster") or "") for row in rows)
        return ItemScores(tuple(str(row["id"]) for row in rows), categories, table[:, 0], table[:, 1], clusters)


def _score(row: dict[str, Any], prefix: str, path: Path, number: int) -> tuple[float, float]:
    if f"{prefix}bits" in row:
        return row[f"{prefix}bits"], row["bytes"]
    for name in ("score", "correct"):
        if isinstance(row.get(prefix + name), (bool, int, float)):
            return float(row[prefix + name]), 1.0
    raise NoItemScoresError(
        f"{path}:{number} has no {prefix}bits, {prefix}score or {prefix}correct. Times of the throughput suite are no scores of items and "
        "stand side by side; of any other suite run `sibol evaluate` again" + (" with --baseline." if prefix else ".")
    )


def read_results(path: Path | str) -> StoredResults:
    """Read a results.json, or that of a folder. Raises DataError when it is missing, damaged or of another schema."""
    path = Path(path)
    if path.is_dir():
        path /= "results.json"
    results = read_json(path, "evaluation results")
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != RESULTS_SCHEMA:
        raise DataError(f"{path} has schema {schema!r}, expected {RESULTS_SCHEMA!r}. Write it again with `sibol evaluate`.")
    return StoredResults(path, results, sha256_of_file(path))
