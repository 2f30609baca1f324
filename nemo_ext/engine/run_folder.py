"""The run folder: what lies where, which checkpoint is the newest complete one, and what a resume may not change.

RUN/run.yaml                         the settings of the run
RUN/model/config.json, tokenizer...  architecture (Hugging Face) and tokenizer: all an export needs besides weights
RUN/checkpoints/step_0000100/        weights/ (Megatron distributed checkpoint) and state.json, complete or not there
RUN/metrics.jsonl                    one line per logged step, validation or resume
RUN/tensorboard/, RUN/wandb/         the same figures for those programs
RUN/DONE, RUN/REQUEUE, RUN/STOP      how the run left, and the wish that it leave (see deadline.py)
RUN/.lock                            locked while a process trains here; says which
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import CheckpointError, ConfigError, OutputExistsError
from nemo_ext.common.files import PARTIAL_SUFFIX, disk_errors, read_json
from nemo_ext.common.locks import locked_file
from nemo_ext.config import RunConfig, from_yaml, known_keys

STATE_SCHEMA = "sibol.checkpoint/1"
_STEP_NAME = re.compile(r"step_(\d{7,})")
# Settings that make it another run: changing one under an existing checkpoint would silently mix two experiments.
FIXED_KEYS = (
    "model.family",
    "model.preset",
    "model.overrides",
    "model.init_from",
    "data.task",
    "data.masking.rate",
    "data.masking.validation_rate",
    "data.masking.mask_share",
    "data.masking.random_share",
    "data.masking.whole_words",
    "data.packing",
    "data.piece_tokens",
    "data.plugin_mode",
    "data.plugin",
    "data.plugin_settings",
    "data.plugin_seed",
    "train.seq_length",
    "train.global_batch_size",
    "train.seed",
)


class RunFolder:
    """Paths of one run folder. Creating the object touches nothing on disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.settings = self.path / "run.yaml"
        self.model = self.path / "model"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.wandb = self.path / "wandb"
        self.index_cache = self.path / "index_cache"
        self.done = self.path / "DONE"
        self.requeue = self.path / "REQUEUE"
        self.stop = self.path / "STOP"
        self.lock = self.path / ".lock"

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after optimizer step `step`."""
        return self.checkpoints / f"step_{step:07d}"

    def partial_checkpoint(self, step: int) -> Path:
        """Folder that a checkpoint is written to before it becomes visible."""
        return self.checkpoints / f".step_{step:07d}{PARTIAL_SUFFIX}"

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        if not self.checkpoints.is_dir():
            return []
        names = (_STEP_NAME.fullmatch(entry.name) for entry in self.checkpoints.iterdir() if (entry / "state.json").is_file())
        return sorted(int(match[1]) for match in names if match)

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        steps = self.steps()
        return self.checkpoint(steps[-1]) if steps else None

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half written."""
        if self.checkpoints.is_dir():
            for entry in self.checkpoints.glob(f".*{PARTIAL_SUFFIX}"):
                shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def training_here(folder: RunFolder) -> Iterator[None]:
    """Have the run folder to oneself. Raises OutputExistsError, which says who trains there, when it is not to be had."""
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(locked_file(folder.lock))
        except BlockingIOError:
            holder = folder.lock.read_text(encoding="utf-8").strip() or "another process"
            raise OutputExistsError(
                f"{folder.path} is being trained by {holder}. Wait for it, or have it stop after its step: touch {folder.stop}. "
                "For another run choose another output_dir=DIR."
            ) from None
        with disk_errors(folder.lock):
            handle.truncate(0)
            handle.write(_this_process())
            handle.flush()
        yield


def _this_process() -> str:
    jobs = (os.environ.get(name) for name in ("SLURM_JOB_ID", "PBS_JOBID"))
    job = next((f", job {job_id}" for job_id in jobs if job_id), "")
    return f"process {os.getpid()} on {socket.gethostname()}{job}\n"


def checkpoint_to_resume(config: RunConfig) -> Path | None:
    """The checkpoint that this run continues from, by `checkpoint.resume`, or None to start anew.

    Raises CheckpointError (resume=must without a checkpoint), OutputExistsError (resume=never with one) and ConfigError
    (a setting that makes it another run differs from the run folder's).
    """
    folder = RunFolder(config.output_dir)
    latest = folder.latest()
    if config.checkpoint.resume == "must" and latest is None:
        raise CheckpointError(f"checkpoint.resume=must, but {folder.checkpoints} holds no complete checkpoint. Use resume=auto to start.")
    if config.checkpoint.resume == "never" and latest is not None:
        raise OutputExistsError(
            f"checkpoint.resume=never, but {folder.path} holds a checkpoint of step {folder.steps()[-1]}. "
            "Choose another output_dir=DIR, or resume=auto to continue it."
        )
    if latest is not None:
        refuse_other_run(config, from_yaml(folder.settings))
    return latest


def refuse_other_run(config: RunConfig, earlier: RunConfig) -> None:
    """Raise ConfigError when a setting that a resume must keep differs from the earlier one."""
    changed = [key for key in FIXED_KEYS if _value(config, key) != _value(earlier, key)]
    if changed:
        lines = "; ".join(f"{key}: {_value(earlier, key)!r} in the run folder, {_value(config, key)!r} asked for" for key in changed)
        raise ConfigError(f"{config.output_dir} holds another run ({lines}). Choose another output_dir=DIR, or give the same settings.")


def changed_settings(config: RunConfig, earlier: RunConfig) -> list[str]:
    """Dotted names of all settings that differ."""
    return [key for key in known_keys(config) if _value(config, key) != _value(earlier, key)]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state.json of a checkpoint. Raises CheckpointError when it has another schema."""
    state = read_json(checkpoint / "state.json", "checkpoint state")
    if state.get("schema") != STATE_SCHEMA:
        raise CheckpointError(f"{checkpoint} has schema {state.get('schema')!r}, expected {STATE_SCHEMA!r}. Use the version that wrote it.")
    return state


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config
