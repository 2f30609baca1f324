"""The recipe of `sibol demo`: small enough for two CPU cores and a few minutes."""

from __future__ import annotations

from nemo_ext.config import (
    CheckpointConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)


def demo() -> RunConfig:
    """A Qwen2.5-architecture model of 2.8 M parameters, from scratch, on two tensor-parallel ranks."""
    return RunConfig(
        name="demo",
        output_dir="demo/run",
        model=ModelConfig(preset="tiny", overrides={"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6}),
        train=TrainConfig(max_steps=140, seq_length=256, global_batch_size=16, micro_batch_size=16),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.1),
        schedule=ScheduleConfig(kind="wsd", warmup_steps=14, decay_steps=70),
        parallel=ParallelConfig(tp=2),
        checkpoint=CheckpointConfig(every_steps=35),
        validation=ValidationConfig(every_steps=35, batches=2),
    )
