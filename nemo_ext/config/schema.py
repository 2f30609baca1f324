"""RunConfig: everything that decides what a run computes, as typed dataclasses without torch.

A recipe is a function that returns one. Each field carries its help text and, where it has one, its set of choices or
its smallest value; `nemo_ext.config.checks` enforces them and the conditions between fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Dict, Optional  # noqa: UP035  OmegaConf reads these annotations at run time

# ruff: noqa: RUF009  `setting` makes a dataclass field


def setting(default: Any, help: str, *, choices: tuple[str, ...] = (), minimum: float | None = None) -> Any:
    """A dataclass field with its help text, and optionally the allowed values or the smallest one."""
    metadata = {"help": help, "choices": choices, "minimum": minimum}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """Which architecture, and where its weights come from."""

    family: str = setting("qwen2", "model family, see `sibol doctor --families`")
    preset: str = setting("tiny", "size within the family; ignored when init_from is set")
    overrides: Dict[str, Any] = setting({}, "fields of the Hugging Face config to change, e.g. model.overrides.num_hidden_layers=8")  # noqa: UP006
    init_from: str | None = setting(
        None, "Hugging Face folder or `sibol import`ed checkpoint to take config, weights and tokenizer from; null: random weights"
    )
    compare_start: str = setting(
        "auto",
        "compare the loss before step 1 with Hugging Face's model of init_from: if it is small enough",
        choices=("auto", "always", "never"),
    )
    layer_spec: str = setting("auto", "Transformer Engine layers, our own, or TE where it is installed", choices=("auto", "te", "local"))
    attention_dropout: Optional[float] = setting(None, "dropout on attention weights; null: as the Hugging Face config says", minimum=0)  # noqa: UP045
    hidden_dropout: Optional[float] = setting(None, "dropout on the residual branches; null: as the Hugging Face config says", minimum=0)  # noqa: UP045


@dataclass
class MaskingConfig:
    """Which tokens a masked language model has to predict, and what it sees in their place."""

    rate: float = setting(0.3, "share of tokens to predict: ModernBERT 0.3, BERT 0.15", minimum=0)
    validation_rate: float | None = setting(None, "the share in validation, whose masks are the same in every run; null: rate", minimum=0)
    mask_share: float = setting(0.8, "of the tokens to predict, those shown as the mask token", minimum=0)
    random_share: float = setting(0.1, "of the tokens to predict, those shown as a random token; the rest is shown as it is", minimum=0)
    whole_words: bool = setting(False, "choose words instead of tokens, so that no part of a word gives the rest away")


@dataclass
class DataConfig:
    """Which dataset to train on and how it is fed."""

    path: str = setting("", "dataset folder written by `sibol data prepare`")
    blend: Dict[str, float] = setting({}, "instead of path: dataset folders and their weights, e.g. data.blend={web: 0.7, books: 0.3}")  # noqa: UP006
    task: str = setting("pretrain", "what is learned from the data")
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    packing: bool = setting(False, "lay pieces of documents end to end in rows of seq_length, instead of padding each to a row of its own")
    piece_tokens: Optional[int] = setting(  # noqa: UP045
        None, "longest piece of a document, special tokens included; longer documents become several; null: seq_length", minimum=1
    )
    plugin_mode: str = setting(
        "offline", "who applies the tokenizer plugin: `sibol data prepare`, or training, anew in every epoch", choices=("offline", "online")
    )
    plugin: Optional[str] = setting(None, "online: plugin to apply; offline: plugin the dataset must have been prepared with, null: any")  # noqa: UP045
    plugin_settings: Dict[str, Any] = setting({}, "settings of the plugin, e.g. data.plugin_settings.expand_prop=0.2")  # noqa: UP006
    plugin_seed: int = setting(1234, "seed of the plugin's random choices when it is applied online", minimum=0)
    num_workers: int = setting(0, "loader processes per rank; 0 reads in the training process", minimum=0)
    index_cache: Optional[str] = setting(None, "folder for Megatron's sample indices; null: inside the run folder")  # noqa: UP045


@dataclass
class TrainConfig:
    """Length, batch and precision of the run."""

    max_steps: int = setting(100, "optimizer steps of the whole run", minimum=1)
    stop_after_step: Optional[int] = setting(None, "leave after this step, with a checkpoint, as if time had run out", minimum=1)  # noqa: UP045
    seq_length: int = setting(512, "tokens per sequence", minimum=2)
    global_batch_size: int = setting(8, "sequences per optimizer step, over all ranks", minimum=1)
    micro_batch_size: int = setting(1, "sequences per forward pass of one rank", minimum=1)
    precision: str = setting("fp32", "fp32, or bf16 compute with fp32 master weights", choices=("fp32", "bf16-mixed"))
    recompute: str = setting("none", "activations to compute again in the backward pass", choices=("none", "selective", "full"))
    seed: int = setting(1234, "seed of weights, data order and dropout", minimum=0)
    threads: Optional[int] = setting(None, "CPU threads per rank; null: cores divided by local ranks", minimum=1)  # noqa: UP045


@dataclass
class OptimizerConfig:
    """AdamW as Megatron runs it."""

    learning_rate: float = setting(3e-4, "peak learning rate", minimum=0)
    weight_decay: float = setting(0.1, "decoupled weight decay on matrices; biases and norms have none", minimum=0)
    beta1: float = setting(0.9, "decay of the first moment", minimum=0)
    beta2: float = setting(0.95, "decay of the second moment", minimum=0)
    epsilon: float = setting(1e-8, "term that keeps the denominator from zero", minimum=0)
    clip_grad_norm: float = setting(1.0, "largest global gradient norm; 0 switches clipping off", minimum=0)


@dataclass
class ScheduleConfig:
    """Learning rate over the run."""

    kind: str = setting(
        "cosine", "shape after the warm-up; wsd holds the peak and decays at the end", choices=("constant", "linear", "cosine", "wsd")
    )
    warmup_steps: int = setting(0, "steps of linear warm-up from 0", minimum=0)
    decay_steps: int | None = setting(
        None, "steps of decay: the last ones for wsd (null: 20 % of the run), else all after the warm-up", minimum=1
    )
    min_learning_rate: float = setting(0.0, "learning rate at the end of the decay", minimum=0)


@dataclass
class ParallelConfig:
    """How the model and the batch are spread over the ranks."""

    tp: int = setting(1, "tensor parallel size", minimum=1)
    pp: int = setting(1, "pipeline parallel size", minimum=1)
    cp: int = setting(1, "context parallel size", minimum=1)
    sequence_parallel: bool = setting(False, "split norms and dropout along the sequence over the tensor parallel ranks")
    distributed_optimizer: bool = setting(True, "split optimizer state over the data parallel ranks")


@dataclass
class CheckpointConfig:
    """When to save and what to keep."""

    every_steps: Optional[int] = setting(None, "save every this many steps; null: by time and at the end only", minimum=1)  # noqa: UP045
    every_minutes: Optional[float] = setting(30.0, "save when this much wall time has passed since the last save", minimum=0)  # noqa: UP045
    keep_last: int = setting(2, "complete checkpoints to keep; 0 keeps all", minimum=0)
    resume: str = setting(
        "auto", "continue from the newest complete checkpoint, insist on one, or start anew", choices=("auto", "must", "never")
    )


@dataclass
class ValidationConfig:
    """Loss on held-out documents during training."""

    every_steps: Optional[int] = setting(None, "validate every this many steps; null: at the end only", minimum=1)  # noqa: UP045
    batches: int = setting(8, "global batches of the validation split per validation; 0 switches validation off", minimum=0)


@dataclass
class LoggingConfig:
    """Where figures go, besides metrics.jsonl in the run folder."""

    every_steps: int = setting(1, "steps between two lines of metrics", minimum=1)
    tensorboard: bool = setting(True, "write TensorBoard events into the run folder")
    wandb_project: Optional[str] = setting(None, "Weights & Biases project; offline unless WANDB_API_KEY is set; null: off")  # noqa: UP045
    progress: bool = setting(True, "show a progress bar on rank 0")


@dataclass
class RunConfig:
    """One training run. `output_dir` is the run folder; everything the run writes lies in it."""

    name: str = setting("run", "name of the run")
    output_dir: str = setting("runs/run", "run folder: run.yaml, checkpoints, metrics.jsonl")
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


def explain_settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and meaning (with choices) of every setting."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from explain_settings(value, f"{prefix}{item.name}.")
        else:
            choices = item.metadata.get("choices")
            yield f"{prefix}{item.name}", value, item.metadata.get("help", "") + (f" ({', '.join(choices)})" if choices else "")
