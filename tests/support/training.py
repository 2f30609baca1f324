"""Real training runs on real ranks, for tests: the engine's own `train` in processes that have imported NeMo already."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_ext.config import RunConfig, apply_overrides, to_yaml
from nemo_ext.engine.launch import free_port
from nemo_ext.models.family import FAMILIES
from tests.support.ranks import run_ranks

# What must be the same to the last bit between an interrupted run and one that was not.
EXACT_KEYS = ("step", "loss", "grad_norm", "learning_rate", "consumed_samples", "validation_loss", "validation_bits_per_byte")


# Settings that make a preset of each family small.
SMALL_MODELS = {
    "gpt2": "{n_embd: 64, n_inner: 96, n_layer: 4, n_head: 4}",
    "llama": "{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2}",
    "qwen2": "{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2}",
}


def small_run(folder: Path, dataset: Path, *overrides: str, family: str = "qwen2") -> RunConfig:
    """A 20-step run of a 4-layer model with a batch of 4 sequences of 32 tokens."""
    base = [
        f"model.family={family}",
        f"model.preset={next(iter(FAMILIES.get(family).presets))}",
        f"model.overrides={SMALL_MODELS[family]}",
        f"output_dir={folder}",
        f"data.path={dataset}",
        "train.max_steps=20",
        "train.seq_length=32",
        "train.global_batch_size=4",
        "optimizer.learning_rate=1e-3",
        "schedule.warmup_steps=4",
        "logging.progress=false",
        "logging.tensorboard=false",
        "validation.batches=2",
    ]
    return apply_overrides(RunConfig(), [*base, *overrides])


def train_on_ranks(ranks: int, config: RunConfig, kill: tuple[str, int] | None = None, timeout_s: float = 240.0) -> list[dict[str, Any]]:
    """Train and return the lines of metrics.jsonl. `kill=(moment, step)` lets rank 0 die of SIGKILL then (see `_arrange_death`).

    Raises RankError when a rank fails or dies.
    """
    run_ranks(ranks, _train, to_yaml(config), free_port(), kill, timeout_s=timeout_s)
    return read_metrics(Path(config.output_dir))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def exact(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that do not depend on wall time, without the start and resume events."""
    return [{key: line[key] for key in EXACT_KEYS if key in line} for line in lines if "event" not in line]


def losses(lines: Sequence[dict[str, Any]]) -> list[float]:
    """Training losses in order of steps."""
    return [line["loss"] for line in lines if "loss" in line]


def _train(settings: str, port: int, kill: tuple[str, int] | None) -> None:
    import tempfile

    import torch

    from nemo_ext.config import from_yaml
    from nemo_ext.engine.train import train

    torch.distributed.destroy_process_group()  # the engine makes its own
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as handle:
        handle.write(settings)
        handle.flush()
        config = from_yaml(handle.name)
    callbacks = [_arrange_death(*kill)] if kill and os.environ["RANK"] == "0" else []
    train(config, int(os.environ["WORLD_SIZE"]), callbacks)


def _arrange_death(moment: str, step: int) -> Any:
    """A callback that kills this process: "step" after the step and before it is saved, "saving" before a checkpoint is renamed."""
    import lightning.pytorch as pl

    from nemo_ext.engine import checkpoints

    def die(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Death(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == step:
                if moment == "step":
                    die()
                checkpoints.sync_tree = die  # called when all is written and nothing is visible yet

    return Death()
