"""RunConfig: what a run is, how it is overridden, written and checked. No torch."""

from nemo_ext.config.checks import check_architecture, check_run, data_parallel_size, longest_sequence
from nemo_ext.config.overrides import apply_overrides, from_yaml, known_keys, to_yaml
from nemo_ext.config.schema import (
    CheckpointConfig,
    DataConfig,
    LoggingConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "LoggingConfig",
    "MaskingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainConfig",
    "ValidationConfig",
    "apply_overrides",
    "check_architecture",
    "check_run",
    "data_parallel_size",
    "from_yaml",
    "known_keys",
    "longest_sequence",
    "to_yaml",
]
