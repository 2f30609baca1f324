"""Continued pretraining of published models on new text; set model.init_from and data.path."""

from __future__ import annotations

from dataclasses import replace

from nemo_ext.config import ModelConfig, OptimizerConfig, ParallelConfig, RunConfig, ScheduleConfig, TrainConfig, ValidationConfig


def continue_pretraining() -> RunConfig:
    """Qwen2.5-0.5B, continued on one GPU in bf16 (batch, rates and schedule of the Filipino study)."""
    return RunConfig(
        name="continue_pretraining",
        output_dir="runs/continue_pretraining",
        model=ModelConfig(preset="0.5b"),
        train=TrainConfig(max_steps=10_000, seq_length=2048, global_batch_size=256, micro_batch_size=4, precision="bf16-mixed"),
        optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.1, beta2=0.95, epsilon=1e-5),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=500, min_learning_rate=1e-5),
        validation=ValidationConfig(every_steps=500, batches=10),
    )


def survey_14b_pretraining() -> RunConfig:
    """Qwen2.5-14B on the text of survey answers, on one node of 8 GPUs."""
    base = continue_pretraining()
    return replace(
        base,
        name="survey_14b_pretraining",
        output_dir="runs/survey_14b_pretraining",
        model=replace(base.model, preset="14b"),
        train=replace(base.train, max_steps=2000, global_batch_size=128, micro_batch_size=1, recompute="selective"),
        optimizer=replace(base.optimizer, learning_rate=1e-5),
        schedule=replace(base.schedule, warmup_steps=100, min_learning_rate=1e-6),
        parallel=ParallelConfig(tp=8, sequence_parallel=True),
    )


def early_modern_72b() -> RunConfig:
    """Qwen2.5-72B on early modern English, on 4 nodes of 8 GPUs (weights, gradients and Adam need about 1.2 TB)."""
    base = survey_14b_pretraining()
    return replace(
        base,
        name="early_modern_72b",
        output_dir="runs/early_modern_72b",
        model=replace(base.model, preset="72b"),
        train=replace(base.train, seq_length=4096),
        parallel=ParallelConfig(tp=8, pp=4, sequence_parallel=True),
    )
