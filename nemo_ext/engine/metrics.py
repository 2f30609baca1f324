"""Figures of a run, written by rank 0 as they appear: metrics.jsonl, TensorBoard, Weights & Biases.

Every figure comes from what NeMo has already reduced over the ranks, so nothing here enters a collective.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl

from nemo_ext.backend.device import peak_memory_bytes
from nemo_ext.common.errors import SibolError
from nemo_ext.common.files import atomic_file, disk_errors
from nemo_ext.config.learning_rate import learning_rate
from nemo_ext.engine.resolve import ResolvedRun

# Figures of wall time differ from run to run; all others are the same to the last bit after a resume.
WALL_TIME_KEYS = ("tokens_per_s", "step_s", "wall_s", "memory_bytes")


class Sink(Protocol):
    """A place that figures go to."""

    def write(self, figures: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def keep_until(path: Path, step: int) -> None:
    """Rewrite metrics.jsonl without lines after `step`, which a resumed run will produce again."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as handle, atomic_file(path) as output:
        for line in handle:
            if line.endswith("\n") and json.loads(line)["step"] <= step:  # a killed writer leaves half a line
                output.write(line)


class JsonLines:
    """metrics.jsonl: one JSON object per line, on disk as soon as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  kept open for the whole run

    def write(self, figures: dict[str, Any]) -> None:
        with disk_errors(self.path):
            self._handle.write(json.dumps(figures, allow_nan=False) + "\n")

    def close(self) -> None:
        self._handle.close()


class TensorBoard:
    """TensorBoard events; those of steps that are done again after a resume are purged."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def write(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, figures["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Weights & Biases; offline unless WANDB_API_KEY is set, so that nothing waits for a network that is not there."""

    def __init__(self, run: ResolvedRun) -> None:
        import wandb

        if not os.environ.get("WANDB_API_KEY"):
            os.environ.setdefault("WANDB_MODE", "offline")
        run.folder.wandb.mkdir(exist_ok=True)
        self._run = wandb.init(project=run.config.logging.wandb_project, name=run.config.name, dir=str(run.folder.path))

    def write(self, figures: dict[str, Any]) -> None:
        self._run.log({name: value for name, value in figures.items() if name != "event"}, step=figures["step"])

    def close(self) -> None:
        self._run.finish()


def open_sinks(run: ResolvedRun, first_step: int) -> list[Sink]:
    """The sinks that the settings ask for; metrics.jsonl always, cut back to the step that the run continues from."""
    keep_until(run.folder.metrics, first_step - 1)
    sinks: list[Sink] = [JsonLines(run.folder.metrics)]
    if run.config.logging.tensorboard:
        sinks.append(TensorBoard(run.folder.tensorboard, first_step))
    if run.config.logging.wandb_project:
        sinks.append(WeightsAndBiases(run))
    return sinks


class MetricsCallback(pl.Callback):
    """Collects the figures of each logged step and validation on rank 0. `latest` is what a progress bar may show."""

    def __init__(self, run: ResolvedRun) -> None:
        self.run = run
        self.sinks: list[Sink] = []
        self.latest: dict[str, Any] = {}
        self._started_s = self._step_began_s = 0.0
        self._training_s = 0.0  # spent on the steps since the last line, without validation and saving between them
        self._logged_step = self._consumed_tokens = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the sinks and note the start, with the weights it starts from, or the resume."""
        self._started_s = time.monotonic()
        self._logged_step = trainer.global_step
        if trainer.is_global_zero:
            self._consumed_tokens = self._tokens_of_steps(trainer, 0, trainer.global_step)
        if trainer.is_global_zero:
            self.sinks = open_sinks(self.run, trainer.global_step + 1)
            event = "resume" if self.run.resume_from else "start"
            self._write({"step": trainer.global_step, "event": event, "ranks": self.run.ranks, **self.run.notes})

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Note when the step begins; its batches are fetched after this."""
        self._step_began_s = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write one line of figures at every logged step and at the last."""
        self._training_s += time.monotonic() - self._step_began_s
        step, config = trainer.global_step, self.run.config
        if not trainer.is_global_zero or (step % config.logging.every_steps and step != config.train.max_steps):
            return
        reduced = trainer.callback_metrics
        loss = float(reduced["reduced_train_loss"])
        if not math.isfinite(loss):
            raise SibolError(
                f"The training loss became {loss} at step {step}. Lower optimizer.learning_rate, lengthen schedule.warmup_steps, "
                f"or set optimizer.clip_grad_norm; the last checkpoint in {self.run.folder.checkpoints} is intact."
            )
        step_s = self._training_s / max(1, step - self._logged_step)
        new_tokens = self._tokens_of_steps(trainer, self._logged_step, step)
        tokens_per_s = new_tokens / self._training_s
        self._consumed_tokens += new_tokens
        self._training_s, self._logged_step = 0.0, step
        self.latest = {
            "step": step,
            "loss": loss,
            "learning_rate": learning_rate(config, step - 1),
            "grad_norm": float(reduced["grad_norm"]) if "grad_norm" in reduced else None,
            "tokens_per_s": tokens_per_s,
            "step_s": step_s,
            "consumed_samples": step * config.train.global_batch_size,
            "consumed_tokens": self._consumed_tokens,
            "memory_bytes": peak_memory_bytes(),
            "wall_s": time.monotonic() - self._started_s,
        }
        self._write(self.latest)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the validation loss and, where it is of all of a text, as bits per byte of the split's text."""
        loss = trainer.strategy.mean_validation_loss()
        if not trainer.is_global_zero:
            return
        figures = {"step": trainer.global_step, "validation_loss": loss}
        if self.run.task.objective == "causal":
            # nats per token -> bits per byte, at the split's own bytes per token (exact when all of it is evaluated)
            figures["validation_bits_per_byte"] = loss / math.log(2) / self.run.data.bytes_per_token("validation")
        self._write(figures)

    def _tokens_of_steps(self, trainer: pl.Trainer, before: int, last: int) -> int:
        """Tokens of the steps after `before` up to `last`, padding not counted."""
        batch_size = self.run.config.train.global_batch_size
        return int(trainer.datamodule.tokens_between(before * batch_size, last * batch_size))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the sinks."""
        for sink in self.sinks:
            sink.close()
        self.sinks = []

    def _write(self, figures: dict[str, Any]) -> None:
        for sink in self.sinks:
            sink.write(figures)
