"""What cannot run is refused before any rank is started, with the numbers and the remedy."""

from __future__ import annotations

import pytest

from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig, apply_overrides, check_architecture, check_run, data_parallel_size

ARCHITECTURE = {
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "num_hidden_layers": 9,
    "intermediate_size": 96,
    "max_position_embeddings": 1024,
}


def configured(*overrides: str) -> RunConfig:
    return apply_overrides(RunConfig(), ["data.path=dataset", *overrides])


@pytest.mark.parametrize(
    ("overrides", "ranks", "message"),
    [
        (["data.path="], 1, "data.path is empty"),
        (["data.blend={web: 1}"], 1, "data.path=dataset and data.blend={'web': 1.0} are both set"),
        (["data.path=", "data.blend={web: 1, books: 0}"], 1, "data.blend has the weights {'books': 0.0}"),
        (["data.path=", "data.blend={web: .inf}"], 1, "data.blend has the weights {'web': inf}"),
        (["train.precision=fp64"], 1, "train.precision=fp64 is not known. Choose one of: fp32, bf16-mixed"),
        (["train.max_steps=0"], 1, "train.max_steps=0 is too small. It must be at least 1"),
        (["parallel.tp=2"], 3, "3 rank(s) cannot hold tp=2 x pp=1 x cp=1 = 2 model shards. Use a multiple of 2 ranks"),
        (
            ["train.global_batch_size=6", "train.micro_batch_size=2"],
            2,
            "global_batch_size=6 is not divisible by micro_batch_size x data parallel size = 2 x 2 = 4",
        ),
        (["parallel.sequence_parallel=true"], 1, "needs parallel.tp > 1"),
        (["parallel.tp=2", "parallel.sequence_parallel=true", "train.seq_length=511"], 2, "seq_length=511 is not divisible by tp=2"),
        (["schedule.warmup_steps=90", "schedule.decay_steps=20"], 1, "exceed train.max_steps=100"),
        (["schedule.min_learning_rate=1"], 1, "is above optimizer.learning_rate"),
        (
            ["parallel.cp=2", "model.layer_spec=local"],
            2,
            "parallel.cp=2: local layers cannot split a sequence over ranks. Set",
        ),
        (["optimizer.beta2=1"], 1, "optimizer.beta2=1.0 must be below 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], ranks: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_run(configured(*overrides), ranks)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parallel.tp=4", "6 attention heads are not divisible by parallel.tp=4"),
        ("parallel.tp=2", "3 key/value heads can neither be split over nor be shared evenly by parallel.tp=2 ranks. Use one of: 1, 3, 6."),
        ("parallel.pp=2", "9 layers are not divisible by parallel.pp=2"),
        ("train.seq_length=2048", "train.seq_length=2048 exceeds the model's max_position_embeddings=1024"),
    ],
)
def test_a_model_that_cannot_be_split_as_asked_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_architecture(configured(override), ARCHITECTURE)
    assert message in str(caught.value)


def test_data_parallel_size_is_what_is_left_of_the_ranks() -> None:
    assert data_parallel_size(configured("parallel.tp=2", "parallel.pp=2"), 8) == 2
