"""Train one run on the ranks that this process is one of: from settings to the last checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch

from nemo_ext.backend import on_cpu
from nemo_ext.common.quiet import quiet_loggers
from nemo_ext.config import RunConfig
from nemo_ext.engine.build import build_model, build_trainer
from nemo_ext.engine.checkpoints import CheckpointCallback
from nemo_ext.engine.deadline import clear_marks, mark_done
from nemo_ext.engine.metrics import MetricsCallback
from nemo_ext.engine.progress import ProgressCallback
from nemo_ext.engine.resolve import ResolvedRun, resolve, write_run_folder
from nemo_ext.engine.run_folder import RunFolder, training_here
from nemo_ext.engine.start_check import StartCheck


@dataclass(frozen=True)
class TrainResult:
    """How a run left: the step it reached and whether that is its last."""

    step: int
    finished: bool


def train(config: RunConfig, ranks: int, callbacks: Sequence[pl.Callback] = ()) -> TrainResult:
    """Train, or continue, a run on `ranks` ranks. Called on each of them, with torchrun's variables in the environment.

    `callbacks` are Lightning callbacks of the caller's, which see each step before it is logged and saved.
    Raises SibolError for anything that the user can mend.
    """
    is_first = os.environ["RANK"] == "0"
    with training_here(RunFolder(config.output_dir)) if is_first else nullcontext():
        run = resolve(config, ranks)
        if is_first:
            write_run_folder(run)
            clear_marks(run.folder)
        return _train(run, callbacks)


def _train(run: ResolvedRun, callbacks: Sequence[pl.Callback]) -> TrainResult:
    config = run.config
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    quiet_loggers()
    metrics, checkpoints = MetricsCallback(run), CheckpointCallback(run)
    start = StartCheck(run)
    trainer = build_trainer(run, [start, *callbacks, metrics, ProgressCallback(metrics), checkpoints])
    model = build_model(run, start.load)
    run.notes.update(
        backend="cpu" if on_cpu() else "cuda",
        layer_spec=model.config.layer_spec,
        data={str(dataset.path): share for dataset, share in run.data.parts},
    )
    index_cache = Path(config.data.index_cache) if config.data.index_cache else run.folder.index_cache
    data = run.task.build_data_module(config, run.data, index_cache)
    trainer.fit(model, data, ckpt_path=str(run.resume_from) if run.resume_from else None)
    finished = not checkpoints.stopped_early
    if finished and trainer.is_global_zero:
        mark_done(run.folder, trainer.global_step)
    return TrainResult(step=trainer.global_step, finished=finished)
