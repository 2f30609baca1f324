"""Training that applies a plugin itself: killed and resumed it ends bit-identical, and neither ranks nor loader processes matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nemo_ext.common.blend import open_blend
from nemo_ext.config import RunConfig
from tests.support.ranks import RankError, run_ranks
from tests.support.training import exact, losses, small_run, train_on_ranks

STOCHASTOK = ["data.plugin_mode=online", "data.plugin=stochastok", "data.plugin_settings.expand_prop=0.5"]


def online_run(folder: Path, dataset: Path, *overrides: str) -> RunConfig:
    return small_run(folder, dataset, *STOCHASTOK, "train.max_steps=10", "checkpoint.every_steps=4", *overrides)


def test_a_killed_and_resumed_online_run_ends_bit_identical_with_any_loader(dataset: Path, tmp_path: Path) -> None:
    expected = train_on_ranks(2, online_run(tmp_path / "whole", dataset, "data.num_workers=1"))
    killed = online_run(tmp_path / "killed", dataset)
    for moment in (("step", 3), ("step", 6)):
        with pytest.raises(RankError):
            train_on_ranks(2, killed, kill=moment)
    assert exact(train_on_ranks(2, killed)) == exact(expected)


def test_one_rank_and_two_see_the_same_sequences_and_the_treatment_is_not_vanilla(dataset: Path, tmp_path: Path) -> None:
    one = losses(train_on_ranks(1, online_run(tmp_path / "one", dataset)))
    two = losses(train_on_ranks(2, online_run(tmp_path / "two", dataset)))
    assert two == pytest.approx(one, abs=1e-5, rel=0)
    other_seed = losses(train_on_ranks(1, online_run(tmp_path / "seed", dataset, "data.plugin_seed=5")))
    assert other_seed[0] != one[0]


def test_sequences_are_numbered_alike_in_runs_of_any_length_and_lose_no_text(dataset: Path, tmp_path: Path) -> None:
    run_ranks(1, _check_sequences, dataset, tmp_path)


def _check_sequences(dataset: Path, folder: Path) -> None:
    from nemo_ext.tasks import online
    from nemo_ext.tasks.pretrain import PretrainingData
    from nemo_ext.tokenizers import load

    online.WINDOW = 64
    blend, tokenizer = open_blend({str(dataset): 1.0}), load(dataset / "tokenizer")
    short, long = (PretrainingData(online_run(folder, dataset, f"train.max_steps={steps}"), blend, folder) for steps in (20, 1600))
    for module in (short, long):
        module.setup()
    assert len(short._train) == 128 and len(long._train) == 6400
    for number in (0, 17, 63, 64, 127):
        assert all(np.array_equal(short._train[number][key], long._train[number][key]) for key in ("tokens", "labels"))
    order = np.concatenate([64 * window + np.random.default_rng([1234, 64, window]).permutation(64) for window in range(100)])
    ids = np.concatenate([long._train[number]["tokens"].numpy() for number in np.argsort(order)])
    split = blend.split("train")[0][0]
    ends = np.flatnonzero(ids == blend.eod_id)[: split.documents]
    assert len(ends) == split.documents
    assert len(tokenizer.decode_bytes(ids[: ends[-1] + 1])) - split.documents * len(b"<|endoftext|>") == split.bytes
