"""When a run saves and stops, and how a checkpoint becomes visible all at once.

NeMo writes the distributed checkpoint into a hidden folder; when all ranks have written, rank 0 adds state.json, flushes
everything to disk and renames the folder. A run that is killed at any moment leaves its last complete checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed.checkpoint

from nemo_ext.common.errors import CheckpointError, DiskFullError, SibolError
from nemo_ext.common.files import disk_errors, sync_folder, sync_tree
from nemo_ext.engine.deadline import REQUEUE_WORD, Deadline, deadline_of, mark_stopped, stop_file_word
from nemo_ext.engine.resolve import ResolvedRun
from nemo_ext.engine.run_folder import STATE_SCHEMA
from nemo_ext.engine.signals import catch_stop_signals, stop_requested

NEXT_TO_NOTHING_BYTES = 16 * 2**20  # a writer that failed with less than this left failed for lack of space


class Agreement:
    """Decisions that all ranks take together: a flag raised on any rank is raised on all. Costs one tiny CPU all-reduce."""

    def __init__(self) -> None:
        distributed = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        # gloo on every device: on a GPU this neither waits for the compute stream nor disturbs NCCL
        self._group = torch.distributed.new_group(backend="gloo") if distributed else None

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true when it is true on any rank. Every rank must call it the same number of times."""
        if self._group is None:
            return flags
        votes = torch.tensor(flags, dtype=torch.int32)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return tuple(bool(vote) for vote in votes)


class CheckpointCallback(pl.Callback):
    """Saves by step, by wall time, when time runs out, when asked to stop and at the end; keeps the last few.

    When a step also validates, it saves after the validation, so that a resume has both behind it.
    """

    def __init__(self, run: ResolvedRun) -> None:
        self.run = run
        self.stopped_early = False
        self._deadline = Deadline(None)
        self._saved_s = self._lap_s = 0.0
        self._first_step = 0
        self._reason: str | None = None  # why the run should be continued elsewhere
        self._agreement: Agreement | None = None
        self._waiting_for_validation = self._save = self._stop = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the stop signals back from Lightning, which would end the run without saving."""
        catch_stop_signals()
        self._agreement = Agreement()
        self._deadline = deadline_of(os.environ)
        self._first_step = trainer.global_step
        self._saved_s = self._lap_s = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Decide, on all ranks alike, whether to save and whether to stop after this step."""
        self._lap("step")
        step, checkpoint, train = trainer.global_step, self.run.config.checkpoint, self.run.config.train
        overdue = checkpoint.every_minutes is not None and time.monotonic() - self._saved_s >= 60 * checkpoint.every_minutes
        by_step = checkpoint.every_steps is not None and step % checkpoint.every_steps == 0
        asked, overdue = self._asked_to_stop(trainer, overdue, by_step)
        finished = step >= train.max_steps
        self._stop = not finished and (asked or step == train.stop_after_step)
        self._save = finished or self._stop or overdue or by_step
        self._waiting_for_validation = validates_after(trainer, step)
        if not self._waiting_for_validation:
            self._act(trainer)

    def _asked_to_stop(self, trainer: pl.Trainer, overdue: bool, by_step: bool) -> tuple[bool, bool]:
        """Whether any rank was signalled, or rank 0 finds that time is up or a stop-file; and whether a save is overdue on any rank."""
        assert self._agreement is not None
        word, late = None, False
        if trainer.is_global_zero:
            validations = sum(validates_after(trainer, step) for step in (trainer.global_step, trainer.global_step + 1))
            late = self._deadline.too_late(validations, int(trainer.limit_val_batches), saves=2 if overdue or by_step else 1)
            word = stop_file_word(self.run.folder)
        late, told, wanted, signalled, overdue = self._agreement.any(
            late, word == REQUEUE_WORD, word not in (None, REQUEUE_WORD), stop_requested(), overdue
        )
        reasons = {"deadline": late, "scheduler": told, "signal": signalled, "stop_after_step": True}
        self._reason = None if wanted else next(reason for reason, holds in reasons.items() if holds)
        return late or told or wanted or signalled, overdue

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Act on a decision that waited for this validation."""
        self._lap("validation")
        if self._waiting_for_validation:
            self._waiting_for_validation = False
            self._act(trainer)

    def _act(self, trainer: pl.Trainer) -> None:
        if self._save:
            save_checkpoint(trainer, self.run)
            self._lap("save")
            self._saved_s = time.monotonic()
        if self._stop:
            if trainer.is_global_zero:
                mark_stopped(self.run.folder, trainer.global_step, self._first_step, self._reason)
                print(f"stopped after step {trainer.global_step} ({self._reason or 'RUN/STOP'}), with a checkpoint", file=sys.stderr)
            self.stopped_early = trainer.should_stop = True
            trainer.limit_val_batches = 0  # Lightning validates before it stops; an uninterrupted run would not have
        self._save = self._stop = False

    def _lap(self, what: str) -> None:
        now_s = time.monotonic()
        self._deadline.took(what, now_s - self._lap_s)
        self._lap_s = now_s


def validates_after(trainer: pl.Trainer, step: int) -> bool:
    """Whether Lightning will run validation after optimizer step `step`."""
    return bool(trainer.limit_val_batches) and step % int(trainer.val_check_interval) == 0


def save_checkpoint(trainer: pl.Trainer, run: ResolvedRun) -> None:
    """Write the checkpoint of the current step on all ranks; it appears under its name when it is complete.

    Raises DiskFullError when the file system is full; the incomplete folder stays hidden and is removed by the next run.
    """
    step = trainer.global_step
    final, partial = run.folder.checkpoint(step), run.folder.partial_checkpoint(step)
    with disk_errors(final):
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        trainer.strategy.barrier("checkpoint folder is there")
        try:
            trainer.save_checkpoint(partial)
        except (torch.distributed.checkpoint.CheckpointException, RuntimeError) as error:  # what Megatron's writer turns an OSError into
            raise write_failure(final, error) from error
        if trainer.is_global_zero:
            tokens = trainer.datamodule.tokens_between(0, step * run.config.train.global_batch_size)
            (partial / "state.json").write_text(json.dumps(checkpoint_state(run, step, tokens), indent=2) + "\n", encoding="utf-8")
            sync_tree(partial)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            sync_folder(final.parent)
            remove_old_checkpoints(run)
        trainer.strategy.barrier("checkpoint is visible")


def write_failure(checkpoint: Path, error: BaseException) -> SibolError:
    """The error of a checkpoint that could not be written: a full disk, if there is next to no space left, or what the writer said."""
    free_bytes = shutil.disk_usage(checkpoint.parent).free
    kept = "The incomplete folder is hidden and will be removed; earlier checkpoints are intact."
    if free_bytes < NEXT_TO_NOTHING_BYTES:
        return DiskFullError(
            f"No space left while writing {checkpoint} ({free_bytes:,} bytes free). {kept} Free some space, or lower checkpoint.keep_last, "
            "then run the same command again."
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return CheckpointError(f"{checkpoint} could not be written: {reason}. {kept} Check the file system, then run the same command again.")


def checkpoint_state(run: ResolvedRun, step: int, consumed_tokens: int) -> dict[str, Any]:
    """What a checkpoint says of itself, for resume, export and provenance."""
    train, parallel = run.config.train, run.config.parallel
    return {
        "schema": STATE_SCHEMA,
        "step": step,
        "max_steps": train.max_steps,
        "consumed_samples": step * train.global_batch_size,
        "consumed_tokens": consumed_tokens,
        "precision": train.precision,
        "layout": {"ranks": run.ranks, "tp": parallel.tp, "pp": parallel.pp, "cp": parallel.cp},
        "dataset_fingerprint": run.data.fingerprint,
        "tokenizer_fingerprint": run.data.tokenizer_fingerprint,
    }


def remove_old_checkpoints(run: ResolvedRun) -> None:
    """Remove all but the newest `keep_last` checkpoints; one that is being removed is hidden first."""
    keep = run.config.checkpoint.keep_last
    for step in run.folder.steps()[:-keep] if keep else []:
        hidden = run.folder.partial_checkpoint(step)
        os.replace(run.folder.checkpoint(step), hidden)
        shutil.rmtree(hidden, ignore_errors=True)
