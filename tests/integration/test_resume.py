"""A run that was killed and resumed cannot be told from one that was not, and a checkpoint is complete or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_ext.common.files import read_json
from nemo_ext.config import RunConfig
from nemo_ext.convert.checkpoint import CheckpointWeights
from nemo_ext.engine.run_folder import RunFolder
from nemo_ext.models.family import family_of
from tests.support.ranks import RankError
from tests.support.training import exact, losses, read_metrics, small_run, train_on_ranks

EVERY_FEATURE = [
    "train.max_steps=12",
    "checkpoint.every_steps=4",
    "validation.every_steps=4",
    "model.attention_dropout=0.1",
    "model.hidden_dropout=0.1",
    "data.num_workers=1",
    "checkpoint.keep_last=0",
]


def final_weights(config: RunConfig) -> str:
    """Fingerprint over every bit of the last checkpoint's weights."""
    from nemo_ext.convert.load import source_fingerprint
    from nemo_ext.convert.rules import layer_count

    folder = RunFolder(config.output_dir)
    hf_config = read_json(folder.model / "config.json")
    rules = family_of(hf_config).build_mapping(hf_config)
    latest = folder.latest()
    assert latest is not None
    return source_fingerprint(rules, layer_count(hf_config), CheckpointWeights(latest / "weights", rules, layer_count(hf_config)))


@pytest.mark.parametrize(("ranks", "layout"), [(1, []), (2, ["parallel.tp=2"]), (2, [])], ids=["one_rank", "tp2", "dp2"])
def test_a_run_killed_at_any_step_and_resumed_ends_bit_identical(ranks: int, layout: list[str], dataset: Path, tmp_path: Path) -> None:
    whole = small_run(tmp_path / "whole", dataset, *EVERY_FEATURE, *layout)
    expected = train_on_ranks(ranks, whole)
    killed = small_run(tmp_path / "killed", dataset, *EVERY_FEATURE, *layout)
    moments = [("step", 2), ("step", 4), ("saving", 7), ("step", 11)] if ranks == 1 else [("step", 6), ("saving", 11)]
    for moment in moments:
        with pytest.raises(RankError):  # from the rank that died, or from another that lost it
            train_on_ranks(ranks, killed, kill=moment)
        assert RunFolder(killed.output_dir).steps()[-1:] != [killed.train.max_steps]
    resumed = train_on_ranks(ranks, killed)
    assert exact(resumed) == exact(expected)
    assert final_weights(killed) == final_weights(whole)
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


def test_bf16_resumes_bit_identical_after_a_stop(dataset: Path, tmp_path: Path) -> None:
    settings = ["train.max_steps=8", "train.precision=bf16-mixed"]
    expected = train_on_ranks(1, small_run(tmp_path / "whole", dataset, *settings))
    train_on_ranks(1, small_run(tmp_path / "stopped", dataset, *settings, "train.stop_after_step=5"))
    assert RunFolder(tmp_path / "stopped").steps() == [5]
    resumed = train_on_ranks(1, small_run(tmp_path / "stopped", dataset, *settings))
    assert exact(resumed) == exact(expected)


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [(2, ["parallel.tp=2"]), (2, ["parallel.pp=2"]), (2, [])],
    ids=["to_tp2", "to_pp2", "to_dp2"],
)
def test_a_checkpoint_continues_the_same_curve_under_another_layout(ranks: int, layout: list[str], dataset: Path, tmp_path: Path) -> None:
    expected = train_on_ranks(1, small_run(tmp_path / "whole", dataset))
    train_on_ranks(1, small_run(tmp_path / "moved", dataset, "train.stop_after_step=10"))
    moved = train_on_ranks(ranks, small_run(tmp_path / "moved", dataset, *layout))
    assert losses(moved) == pytest.approx(losses(expected), abs=1e-5, rel=0)


@pytest.mark.parametrize("ranks", [(1, 4), (4, 2)], ids=["from one rank to tp4", "from tp4 to tp2"])
def test_key_value_heads_that_ranks_share_continue_the_same_curve(ranks: tuple[int, int], dataset: Path, tmp_path: Path) -> None:
    def settings(tp: int) -> list[str]:
        return ["train.max_steps=8", "model.overrides.num_key_value_heads=2", f"parallel.tp={tp}"]

    expected = train_on_ranks(1, small_run(tmp_path / "whole", dataset, *settings(1)))
    train_on_ranks(ranks[0], small_run(tmp_path / "moved", dataset, *settings(ranks[0]), "train.stop_after_step=4"))
    moved = train_on_ranks(ranks[1], small_run(tmp_path / "moved", dataset, *settings(ranks[1])))
    assert losses(moved) == pytest.approx(losses(expected), abs=1e-5, rel=0)


def test_keep_last_leaves_the_newest_checkpoints(dataset: Path, tmp_path: Path) -> None:
    config = small_run(tmp_path, dataset, "train.max_steps=5", "checkpoint.every_steps=1", "checkpoint.keep_last=2")
    train_on_ranks(1, config)
    assert RunFolder(tmp_path).steps() == [4, 5]
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5]
