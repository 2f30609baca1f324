"""The progress bar of a run, on rank 0: a live bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nemo_ext.engine.metrics import MetricsCallback

LOG_LINE_EVERY_S = 15.0


class ProgressCallback(pl.Callback):
    """Shows step, loss, tokens/s and time left from the figures that `MetricsCallback` collected."""

    def __init__(self, metrics: MetricsCallback) -> None:
        self.metrics = metrics
        self._bar: Progress | None = None
        self._task: Any = None
        self._line_s = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar where the run (re)starts."""
        self._first_step = trainer.global_step
        if not trainer.is_global_zero or not self.metrics.run.config.logging.progress:
            return
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        self._bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[figures]}"), console=console)
        self._bar.start()
        self._task = self._bar.add_task("training", total=trainer.max_steps, completed=trainer.global_step, figures="")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar, or print a line when the last one is old."""
        if not trainer.is_global_zero or not self.metrics.latest or not self.metrics.run.config.logging.progress:
            return
        figures = "loss {loss:.4f}  {tokens_per_s:,.0f} tokens/s".format(**self.metrics.latest)
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, figures=figures)
        elif time.monotonic() - self._line_s > LOG_LINE_EVERY_S or trainer.global_step == trainer.max_steps:
            self._line_s = time.monotonic()
            per_step_s = self.metrics.latest["wall_s"] / (trainer.global_step - self._first_step)  # with validation and saving
            left_s = (trainer.max_steps - trainer.global_step) * per_step_s
            print(f"step {trainer.global_step}/{trainer.max_steps}  {figures}  {left_s:,.0f} s left", file=sys.stderr, flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
