"""metrics.jsonl as columns."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.history import read_history
from nemo_ext.common.errors import DataError


def training_line(step: int, **other: Any) -> dict[str, Any]:
    return {"step": step, "loss": 8.0 - step, "learning_rate": 1e-3, "consumed_tokens": 100 * step, "wall_s": float(step), **other}


def write_metrics(folder: Path, records: list[dict[str, Any]], tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return folder


RESUMED_RUN = [
    {"step": 0, "event": "start"},
    training_line(1, grad_norm=None),
    training_line(2, grad_norm=3.5, memory_bytes=70),
    {"step": 2, "validation_loss": 6.5, "validation_bits_per_byte": 2.0},
    {"step": 2, "event": "resume"},
    training_line(3, wall_s=1.5, memory_bytes=60),
    training_line(4, wall_s=2.5),
    {"step": 4, "validation_loss": 6.75, "validation_bits_per_byte": 2.1},
]


def test_the_summary_of_a_resumed_run_joins_its_parts(tmp_path: Path) -> None:
    summary = read_history(write_metrics(tmp_path, RESUMED_RUN)).summary()
    assert (summary["steps"], summary["tokens"], summary["tokens_per_step"]) == (4, 400, 100)
    assert (summary["first_loss"], summary["last_loss"]) == (7.0, 4.0)
    assert (summary["last_validation_loss"], summary["best_validation_loss"]) == (6.75, 6.5)
    assert (summary["last_validation_bits_per_byte"], summary["best_validation_bits_per_byte"]) == (2.1, 2.0)
    assert summary["wall_s"] == 2.0 + 2.5  # the clock starts anew with a resume
    assert (summary["largest_grad_norm"], summary["peak_memory_bytes"], summary["median_tokens_per_s"]) == (3.5, 70, None)
    assert summary["resumed_after_steps"] == [2]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    history = read_history(write_metrics(tmp_path, RESUMED_RUN, tail='{"step": 5, "lo'))
    np.testing.assert_array_equal(history.training["step"], [1, 2, 3, 4])
    assert history.sha256 == hashlib.sha256((tmp_path / "metrics.jsonl").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("records", "tail", "complaint"),
    [
        ([], "", r"no training steps"),
        ([training_line(1)], "{broken\n", r"metrics\.jsonl:2 is not valid JSON"),
        ([training_line(1)], "{}\n", r"metrics\.jsonl:2 has no step"),
        ([{"step": 1, "loss": 2.0}], "", r"metrics\.jsonl:1 lacks consumed_tokens, learning_rate"),
        ([training_line(2), training_line(2)], "", r"training step 2 after step 2"),
    ],
)
def test_damaged_metrics_are_refused_with_their_place(tmp_path: Path, records: list[dict[str, Any]], tail: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_history(write_metrics(tmp_path, records, tail))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl does not exist"):
        read_history(tmp_path)
