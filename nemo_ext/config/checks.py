"""What must hold between settings, checked before anything heavy is imported or any rank is started."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from nemo_ext.common.errors import ConfigError
from nemo_ext.common.hf_config import with_common_names
from nemo_ext.config.schema import DataConfig, MaskingConfig, RunConfig


def check_values(config: Any, prefix: str = "") -> None:
    """Check every setting's own limits: choices and smallest value. Raises ConfigError."""
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            check_values(value, f"{key}.")
            continue
        choices, minimum = item.metadata.get("choices"), item.metadata.get("minimum")
        if choices and value not in choices:
            raise ConfigError(f"{key}={value} is not known. Choose one of: {', '.join(choices)}.")
        if minimum is not None and value is not None and not value >= minimum:
            raise ConfigError(f"{key}={value} is too small. It must be at least {minimum}.")


def data_parallel_size(config: RunConfig, ranks: int) -> int:
    """Ranks that hold the same shard of the model. Raises ConfigError when the ranks cannot be divided so."""
    parallel = config.parallel
    model_ranks = parallel.tp * parallel.pp * parallel.cp
    if ranks % model_ranks:
        raise ConfigError(
            f"{ranks} rank(s) cannot hold tp={parallel.tp} x pp={parallel.pp} x cp={parallel.cp} = {model_ranks} model shards. "
            f"Use a multiple of {model_ranks} ranks (--ranks {model_ranks}) or smaller parallel sizes."
        )
    return ranks // model_ranks


def check_run(config: RunConfig, ranks: int) -> None:
    """Check everything that can be known without the model's config. Raises ConfigError naming values and remedy."""
    check_values(config)
    train, parallel, schedule = config.train, config.parallel, config.schedule
    check_data(config.data)
    check_masking(config.data.masking)
    if config.data.piece_tokens and config.data.piece_tokens > train.seq_length:
        raise ConfigError(f"data.piece_tokens={config.data.piece_tokens} do not fit into train.seq_length={train.seq_length}. Lower it.")
    per_pass = train.micro_batch_size * data_parallel_size(config, ranks)
    if train.global_batch_size % per_pass:
        raise ConfigError(
            f"train.global_batch_size={train.global_batch_size} is not divisible by micro_batch_size x data parallel size = "
            f"{train.micro_batch_size} x {per_pass // train.micro_batch_size} = {per_pass}. Use a multiple of {per_pass}."
        )
    if parallel.sequence_parallel and parallel.tp == 1:
        raise ConfigError("parallel.sequence_parallel=true needs parallel.tp > 1. Set tp, or switch sequence_parallel off.")
    if train.seq_length % (parallel.tp if parallel.sequence_parallel else 1):
        raise ConfigError(f"train.seq_length={train.seq_length} is not divisible by tp={parallel.tp}, which sequence_parallel needs.")
    if parallel.cp > 1 and config.model.layer_spec == "local":
        raise ConfigError(local_layers_refusal(parallel.cp))
    if schedule.warmup_steps + (schedule.decay_steps or 0) > train.max_steps:
        raise ConfigError(
            f"schedule.warmup_steps={schedule.warmup_steps} + decay_steps={schedule.decay_steps or 0} exceed "
            f"train.max_steps={train.max_steps}. Shorten them, or train longer."
        )
    if schedule.min_learning_rate > config.optimizer.learning_rate:
        raise ConfigError(
            f"schedule.min_learning_rate={schedule.min_learning_rate} is above optimizer.learning_rate={config.optimizer.learning_rate}."
        )
    for key, beta in (("beta1", config.optimizer.beta1), ("beta2", config.optimizer.beta2)):
        if beta >= 1:
            raise ConfigError(f"optimizer.{key}={beta} must be below 1.")


def local_layers_refusal(cp: int) -> str:
    """Why local layers do not do context parallelism; said before ranks start where they are asked for, else when they are built."""
    return (
        f"parallel.cp={cp}: local layers cannot split a sequence over ranks. "
        "Set parallel.cp=1, or use Transformer Engine layers (model.layer_spec=te) on GPUs."
    )


def check_data(data: DataConfig) -> None:
    """Check that the settings name one dataset or one blend. Raises ConfigError."""
    if data.path and data.blend:
        raise ConfigError(
            f"data.path={data.path} and data.blend={data.blend} are both set. Set one of them to nothing: data.path= or data.blend={{}}."
        )
    if not data.path and not data.blend:
        raise ConfigError(
            "data.path is empty. Set it to a dataset folder: data.path=DIR (made by `sibol data prepare`), or set data.blend."
        )
    wrong = {path: weight for path, weight in data.blend.items() if not 0 < weight < math.inf}
    if wrong:
        raise ConfigError(f"data.blend has the weights {wrong}. Expected numbers above 0; leave a dataset out to give it no weight.")


def check_masking(masking: MaskingConfig) -> None:
    """Check that rates and shares are parts of a whole. Raises ConfigError."""
    rates = {"rate": masking.rate}
    if masking.validation_rate is not None:
        rates["validation_rate"] = masking.validation_rate
    for name, rate in rates.items():
        if not 0 < rate <= 1:
            raise ConfigError(f"data.masking.{name}={rate} is no share of the tokens. Expected more than 0 and at most 1.")
    if not masking.mask_share + masking.random_share <= 1 + 1e-9:
        raise ConfigError(
            f"data.masking.mask_share={masking.mask_share} + random_share={masking.random_share} exceed 1: they are parts of the tokens "
            "to predict. Lower one of them."
        )


def longest_sequence(config: RunConfig) -> int:
    """Tokens of the longest sequence that attends to itself, and so the positions that a model needs."""
    return config.data.piece_tokens or config.train.seq_length


def check_architecture(config: RunConfig, hf_config: Mapping[str, Any]) -> None:
    """Check that a decoder's Hugging Face config can be split as `config.parallel` asks. Raises ConfigError."""
    hf_config = with_common_names(hf_config)
    parallel, tp, pp = config.parallel, config.parallel.tp, config.parallel.pp
    heads, layers = hf_config["num_attention_heads"], hf_config["num_hidden_layers"]
    groups = hf_config.get("num_key_value_heads") or heads
    if heads % tp:
        raise ConfigError(f"{heads} attention heads are not divisible by parallel.tp={tp}. Use a tp that divides {heads}.")
    if groups % tp and tp % groups:
        possible = [size for size in range(1, heads + 1) if heads % size == 0 and (groups % size == 0 or size % groups == 0)]
        raise ConfigError(
            f"{groups} key/value heads can neither be split over nor be shared evenly by parallel.tp={tp} ranks. "
            f"Use one of: {', '.join(map(str, possible))}."
        )
    if hf_config["intermediate_size"] % tp:
        raise ConfigError(f"intermediate_size={hf_config['intermediate_size']} is not divisible by parallel.tp={tp}.")
    if layers % pp:
        raise ConfigError(f"{layers} layers are not divisible by parallel.pp={parallel.pp}. Use a pp that divides {layers}.")
    longest, needed = hf_config.get("max_position_embeddings"), longest_sequence(config)
    if longest and needed > longest:
        name = "data.piece_tokens" if config.data.piece_tokens else "train.seq_length"
        raise ConfigError(
            f"{name}={needed} exceeds the model's max_position_embeddings={longest}. "
            "Use shorter sequences, or set model.overrides.max_position_embeddings (GPT-2: n_positions)."
        )
