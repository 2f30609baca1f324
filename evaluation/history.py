"""A run's metrics.jsonl as columns: training steps, validations and resumes. Reads only; drawing is in `evaluation.plot`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.statistics import FloatArray
from nemo_ext.common.errors import DataError

METRICS_NAME = "metrics.jsonl"
TRAINING_COLUMNS = ("step", "consumed_tokens", "loss", "learning_rate")
OPTIONAL_COLUMNS = ("grad_norm", "tokens_per_s", "memory_bytes", "wall_s")
VALIDATION_COLUMNS = ("step", "validation_loss", "validation_bits_per_byte")


class NoStepsError(DataError):
    """The run has not logged a training step yet."""


@dataclass(frozen=True)
class RunHistory:
    """Columns of a run, in order of steps. Losses are in nats per token; NaN stands for a figure that was not logged.

    `training` has TRAINING_COLUMNS and OPTIONAL_COLUMNS, `validation` VALIDATION_COLUMNS; `resumes` are the steps after which
    the run was continued from a checkpoint. `sha256` is of the bytes that were read, which a run that goes on adds to.
    """

    training: dict[str, FloatArray]
    validation: dict[str, FloatArray]
    resumes: tuple[int, ...]
    sha256: str

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one optimizer step consumes, on average: masked rows differ in length."""
        return float(self.training["consumed_tokens"][-1] / self.training["step"][-1])

    def summary(self) -> dict[str, Any]:
        """The figures that a reader asks for first."""
        losses, steps = self.training["loss"], self.training["step"]
        found: dict[str, Any] = {
            "steps": int(steps[-1]),
            "tokens": int(self.training["consumed_tokens"][-1]),
            "tokens_per_step": self.tokens_per_step,
            "first_loss": float(losses[0]),
            "last_loss": float(losses[-1]),
            "median_tokens_per_s": _finite(np.median, self.training["tokens_per_s"]),
            "largest_grad_norm": _finite(np.max, self.training["grad_norm"]),
            "peak_memory_bytes": _finite(np.max, self.training["memory_bytes"]),
            "wall_s": _wall_s(self.training["wall_s"]),
            "resumed_after_steps": list(self.resumes),
        }
        for name in VALIDATION_COLUMNS[1:]:
            values = self.validation[name]
            found[f"last_{name}"] = float(values[-1]) if len(values) and np.isfinite(values[-1]) else None
            found[f"best_{name}"] = _finite(np.min, values)
        return found


def read_history(run_dir: Path | str) -> RunHistory:
    """Read `run_dir`/metrics.jsonl.

    An unfinished last line, as a killed run leaves it, is not counted. Raises DataError for a missing file, a damaged line, a
    run without training steps, or steps that do not ascend.
    """
    path = Path(run_dir) / METRICS_NAME
    if not path.is_file():
        raise DataError(f"{path} does not exist. Expected a run folder, as `sibol train` writes it; check the path.")
    training: list[dict[str, Any]] = []
    validation: list[dict[str, Any]] = []
    resumes: list[int] = []
    content = path.read_bytes()
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        record = _parse(line, path, number)
        if "loss" in record:
            training.append(_require(record, TRAINING_COLUMNS, path, number))
        elif "validation_loss" in record:
            validation.append(_require(record, VALIDATION_COLUMNS[:2], path, number))
        elif record.get("event") == "resume":
            resumes.append(int(record["step"]))
    if not training:
        raise NoStepsError(f"{path} has no training steps. Let the run take at least one logged step before reporting on it.")
    history = RunHistory(
        _columns(training, (*TRAINING_COLUMNS, *OPTIONAL_COLUMNS)),
        _columns(validation, VALIDATION_COLUMNS),
        tuple(resumes),
        hashlib.sha256(content).hexdigest(),
    )
    _check_ascending(history, path)
    return history


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}:{number} is not valid JSON ({error}). The file is damaged: restore it or remove the line.") from None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise DataError(f"{path}:{number} has no step: {line.decode().strip()[:80]!r}. The file is damaged: restore it or remove the line.")
    return record


def _require(record: dict[str, Any], names: tuple[str, ...], path: Path, number: int) -> dict[str, Any]:
    missing = [name for name in names if not isinstance(record.get(name), (int, float))]
    if missing:
        raise DataError(f"{path}:{number} lacks {', '.join(missing)}. Expected lines as `sibol train` writes them.")
    return record


def _columns(records: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, FloatArray]:
    return {name: np.array([record.get(name) for record in records], dtype=np.float64) for name in names}


def _check_ascending(history: RunHistory, path: Path) -> None:
    for kind, steps in (("training", history.training["step"]), ("validation", history.validation["step"])):
        repeated = np.flatnonzero(np.diff(steps) <= 0)
        if len(repeated):
            raise DataError(
                f"{path} has {kind} step {int(steps[repeated[0] + 1])} after step {int(steps[repeated[0]])}. Expected ascending steps: "
                "two runs may have written to one folder. Start the run again in a folder of its own."
            )


def _finite(reduce: Any, values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(reduce(known)) if len(known) else None


def _wall_s(values: FloatArray) -> float | None:
    """Seconds spent in the logged steps; the clock starts anew with each resume."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    ends = np.append(np.flatnonzero(np.diff(known) < 0), len(known) - 1)
    return float(known[ends].sum())
