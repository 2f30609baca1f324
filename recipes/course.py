"""From-scratch models for a course: GPT-2 scale ideas on a budget of a laptop or one GPU."""

from __future__ import annotations

from dataclasses import replace

from nemo_ext.config import ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig, ValidationConfig


def course_10m() -> RunConfig:
    """A 10 M parameter decoder from scratch: an afternoon on a CPU, minutes on a GPU."""
    return RunConfig(
        name="course_10m",
        output_dir="runs/course_10m",
        model=ModelConfig(preset="mini"),
        train=TrainConfig(max_steps=2000, seq_length=512, global_batch_size=32, micro_batch_size=4),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=100, min_learning_rate=1e-4),
        validation=ValidationConfig(every_steps=200, batches=8),
    )


def course_100m() -> RunConfig:
    """A 100 M parameter decoder from scratch on one GPU, in bf16."""
    base = course_10m()
    return replace(
        base,
        name="course_100m",
        output_dir="runs/course_100m",
        model=ModelConfig(preset="100m"),
        train=replace(base.train, max_steps=20_000, seq_length=1024, global_batch_size=128, micro_batch_size=16, precision="bf16-mixed"),
        optimizer=replace(base.optimizer, learning_rate=6e-4),
        schedule=replace(base.schedule, warmup_steps=1000, min_learning_rate=6e-5),
    )


def course_30m() -> RunConfig:
    """A 30 M parameter decoder of the Llama architecture from scratch on one GPU, in bf16."""
    base = course_10m()
    return replace(
        base,
        name="course_30m",
        output_dir="runs/course_30m",
        model=ModelConfig(family="llama", preset="30m"),
        train=replace(base.train, max_steps=5000, global_batch_size=64, micro_batch_size=16, precision="bf16-mixed"),
        schedule=replace(base.schedule, warmup_steps=250),
    )


def stochastok_47m() -> RunConfig:
    """The StochasTok paper's 47 M parameter decoder from scratch, with its batch, schedule and dropout."""
    # Source: arXiv:2506.01687 and the configs of https://github.com/anyasims/stochastok at 7061534
    return RunConfig(
        name="stochastok_47m",
        output_dir="runs/stochastok_47m",
        model=ModelConfig(family="llama", preset="stochastok-47m", attention_dropout=0.1, hidden_dropout=0.1),
        train=TrainConfig(max_steps=30_000, seq_length=512, global_batch_size=480, micro_batch_size=60, precision="bf16-mixed"),
        optimizer=OptimizerConfig(learning_rate=6e-4, weight_decay=0.1),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=5000, min_learning_rate=6e-5),
        validation=ValidationConfig(every_steps=1000, batches=8),
    )
