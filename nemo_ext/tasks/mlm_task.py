"""Masked language modelling: the task object, and what it needs of a run, light enough for a login node."""

from __future__ import annotations

from nemo_ext.common.blend import Blend
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig, longest_sequence
from nemo_ext.tasks.task import Task

TASK = Task(
    name="mlm",
    data_module="nemo_ext.tasks.mlm:MaskedData",
    data_step="nemo_ext.tasks.mlm:data_step",
    forward_step="nemo_ext.tasks.mlm:forward_step",
    check="nemo_ext.tasks.mlm_task:check",
    check_settings="nemo_ext.tasks.mlm_task:check_settings",
    objective="masked",
    reads=("masking", "packing", "piece_tokens"),
    even_batches=False,
    reference_loss="nemo_ext.tasks.reference:masked_loss",
)


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError for what masking cannot do."""
    if config.data.plugin_mode == "online":
        raise ConfigError(
            "data.plugin_mode=online is for tasks that predict the next token. For data.task=mlm apply the plugin beforehand "
            "(`sibol data prepare --plugin`) and leave data.plugin_mode at offline."
        )
    if config.parallel.cp > 1:
        raise ConfigError(f"parallel.cp={config.parallel.cp}: data.task=mlm does not split sequences. Use parallel.cp=1.")
    if config.data.packing and config.train.micro_batch_size > 1:
        raise ConfigError(
            f"data.packing=true needs train.micro_batch_size=1, found {config.train.micro_batch_size}: a packed row is a batch of its own. "
            f"Set it to 1, and train.seq_length to the tokens of a row, e.g. {config.train.micro_batch_size * config.train.seq_length}, "
            f"with data.piece_tokens={longest_sequence(config)} as the longest piece."
        )


def check(config: RunConfig, data: Blend) -> None:
    """Raise ConfigError unless the tokenizer masks, and leaves room for text in every piece."""
    from nemo_ext.tasks.mlm_vocabulary import masking_vocabulary

    vocabulary = masking_vocabulary(data.tokenizer_dir)
    frame = len(vocabulary.prefix) + len(vocabulary.suffix)
    if longest_sequence(config) <= frame:
        name = "data.piece_tokens" if config.data.piece_tokens else "train.seq_length"
        raise ConfigError(
            f"{name}={longest_sequence(config)} leaves no room for text: the tokenizer puts {frame} tokens around each piece. Raise it."
        )
