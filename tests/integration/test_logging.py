"""The figures of metrics.jsonl go to TensorBoard and to Weights & Biases as well, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training import losses, small_run, train_on_ranks


def test_tensorboard_and_offline_weights_and_biases_have_every_step(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    settings = ["train.max_steps=3", "schedule.warmup_steps=1", "logging.tensorboard=true", "logging.wandb_project=test"]
    lines = train_on_ranks(1, small_run(tmp_path, dataset, *settings))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [scalar.value for scalar in events.Scalars("loss")] == pytest.approx(losses(lines))
    assert {"validation_loss", "validation_bits_per_byte", "grad_norm", "learning_rate", "tokens_per_s", "memory_bytes"} <= set(
        events.Tags()["scalars"]
    )
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    assert next(offline.glob("*.wandb")).stat().st_size > 0


def test_every_step_says_what_a_reader_of_the_run_needs(dataset: Path, tmp_path: Path) -> None:
    lines = train_on_ranks(1, small_run(tmp_path, dataset, "train.max_steps=2", "schedule.warmup_steps=1"))
    start, step = lines[0], lines[1]
    assert (start["event"], start["backend"], start["layer_spec"]) == ("start", "cpu", "local")
    assert step["consumed_samples"] == 4 and step["consumed_tokens"] == 4 * 32
    assert step["tokens_per_s"] > 0 and step["memory_bytes"] > 0 and step["learning_rate"] > 0
