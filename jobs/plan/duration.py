"""Wall time of a run, the jobs it takes, GPU-hours and money."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from jobs.plan.architecture import Architecture
from jobs.plan.layout import Layout
from jobs.plan.resources import Resources
from jobs.plan.speed import DEFAULT_MFU, mfu_at, modelled_step_s, step_s_at
from jobs.plan.storage import checkpoint_bytes
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig

# Our judgements: imports, process groups, reading a checkpoint; what a job leaves unused before its walltime ends; and what one node
# writes to a shared file system.
START_S = 600.0
MARGIN_S = 900.0
SAVE_BYTES_PER_S_AND_NODE = 1e9
FORWARD_SHARE = 1 / 3  # of a step's operations


@dataclass(frozen=True)
class Stated:
    """What is known of the run's speed: the whole run's MFU, its tokens per second, or a factor on the modelled duration."""

    mfu: float | None = None
    tokens_per_s: float | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Speed:
    """Seconds of a step, and where the figure comes from. `mfu` is None where the GPU's peak is not known."""

    step_s: float
    tokens_per_s: float
    mfu: float | None
    source: str


@dataclass(frozen=True)
class Duration:
    """Seconds of the whole run, over all its jobs; `walltime_s` is that of each job."""

    training_s: float
    validation_s: float
    saving_s: float
    starting_s: float
    saves: int
    jobs: int
    walltime_s: int
    gpu_hours: float
    price_usd: float | None

    @property
    def wall_s(self) -> float:
        return self.training_s + self.validation_s + self.saving_s + self.starting_s


def speed(architecture: Architecture, layout: Layout, asked: Resources, stated: Stated) -> Speed | None:
    """Speed as stated or, failing that, as modelled; None on a machine whose peak is not known.

    Raises ConfigError for a stated MFU on such a machine.
    """
    tokens = layout.global_batch_size * layout.seq_length
    peak = asked.peak_flops
    if stated.tokens_per_s is not None:
        step_s, source = tokens / stated.tokens_per_s, "tokens per second as stated"
    elif stated.mfu is not None:
        if not peak:
            raise ConfigError(f"--mfu: site {asked.site.name} has no GPU whose peak is known. State --tokens-per-s instead.")
        step_s, source = step_s_at(stated.mfu, architecture, layout, peak), f"MFU {stated.mfu:.0%} as stated, of the whole run"
    elif peak:
        step_s = modelled_step_s(architecture, layout, peak) * stated.factor
        source = f"estimated: MFU {DEFAULT_MFU:.0%} while a GPU computes, less recomputation, pipeline bubble, tensor parallel exchange"
    else:
        return None
    return Speed(step_s, tokens / step_s, mfu_at(step_s, architecture, layout, peak) if peak else None, source)


def duration(config: RunConfig, architecture: Architecture, layout: Layout, asked: Resources, step_s: float) -> Duration:
    """Time of training, validating, saving and starting. Raises ConfigError when a job's walltime leaves no time to train."""
    steps, validation = config.train.max_steps, config.validation
    rounds = max(1, steps // (validation.every_steps or steps)) if validation.batches else 0
    training_s, validation_s = steps * step_s, rounds * validation.batches * step_s * FORWARD_SHARE
    save_s = checkpoint_bytes(architecture, layout) / (SAVE_BYTES_PER_S_AND_NODE * asked.nodes)
    usable_s = asked.walltime_s - START_S - MARGIN_S - save_s
    if usable_s <= 0:
        raise ConfigError(
            f"A job of {asked.walltime_s} s has no time to train: {START_S:.0f} s to start, {save_s:.0f} s to save and a margin of "
            f"{MARGIN_S:.0f} s come first. Ask for a longer --time."
        )
    periods = [config.checkpoint.every_steps * step_s] if config.checkpoint.every_steps else []
    periods += [60 * config.checkpoint.every_minutes] if config.checkpoint.every_minutes else []
    busy_s = training_s + validation_s
    regular = int(busy_s // max(min(periods), step_s)) if periods else 0
    jobs = ceil((busy_s + regular * save_s) / usable_s)
    saves = regular + jobs
    gpu_hours = (busy_s + saves * save_s + jobs * START_S) / 3600 * asked.gpus
    price = asked.price_per_gpu_hour_usd
    return Duration(
        training_s=training_s,
        validation_s=validation_s,
        saving_s=saves * save_s,
        starting_s=jobs * START_S,
        saves=saves,
        jobs=jobs,
        walltime_s=asked.walltime_s,
        gpu_hours=gpu_hours,
        price_usd=None if price is None else price * gpu_hours,
    )
