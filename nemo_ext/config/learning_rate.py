"""The learning rate as a pure function of the step, for the engine, for plots and for tests."""

from __future__ import annotations

import math

from nemo_ext.config.schema import RunConfig

WSD_DECAY_SHARE = 0.2  # last fifth of the run (Hägele et al. 2024, arXiv:2405.18392, figure 5: 10 to 20 % suffice)


def decay_range(config: RunConfig) -> tuple[int, int]:
    """First and last step (0-based, half open) of the decay. Empty for a constant schedule."""
    schedule, last = config.schedule, config.train.max_steps
    if schedule.kind == "constant":
        return last, last
    if schedule.kind == "wsd":
        steps = schedule.decay_steps or max(1, round(WSD_DECAY_SHARE * last))
        return max(schedule.warmup_steps, last - steps), last
    steps = schedule.decay_steps or last - schedule.warmup_steps
    return schedule.warmup_steps, schedule.warmup_steps + steps


def learning_rate(config: RunConfig, step: int) -> float:
    """Learning rate of optimizer step `step` (0-based).

    Warm-up is linear and reaches the peak at step `warmup_steps` (as Megatron's scheduler counts, the first step of a
    warm-up of n steps has peak/n); cosine and linear fall from the peak to `min_learning_rate`; wsd holds the peak and
    falls linearly over its last steps; after the decay the minimum holds.
    """
    peak, low = config.optimizer.learning_rate, config.schedule.min_learning_rate
    warmup = config.schedule.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    start, end = decay_range(config)
    if step < start or start == end:
        return peak
    if step >= end:
        return low
    done = (step - start) / (end - start)
    if config.schedule.kind == "cosine":
        return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * done))
    return peak + (low - peak) * done
