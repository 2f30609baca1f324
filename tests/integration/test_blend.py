"""Blended training draws from each dataset by its share, on any rank alike, and resumes where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_ext.config import RunConfig, apply_overrides
from tests.support.training import exact, read_metrics, small_run, train_on_ranks


@pytest.fixture(scope="session")
def filipino(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second dataset with the tokenizer of the first."""
    from data_tools.prepare import PrepareOptions, prepare
    from tests.support.small_text import TEXTS, write_jsonl

    folder = tmp_path_factory.mktemp("filipino")
    texts = write_jsonl(folder / "texts.jsonl", TEXTS)
    prepare(PrepareOptions((str(texts),), dataset / "tokenizer", folder / "dataset", split="80,20,0", workers=1))
    return folder / "dataset"


def blended(folder: Path, first: Path, second: Path, *overrides: str) -> RunConfig:
    settings = ["data.path=", f"data.blend={json.dumps({str(first): 0.7, str(second): 0.3})}", "validation.every_steps=5"]
    return apply_overrides(small_run(folder, first), [*settings, *overrides])


def test_a_blended_run_killed_and_resumed_ends_bit_identical_on_two_ranks(dataset: Path, filipino: Path, tmp_path: Path) -> None:
    from tests.support.ranks import RankError

    settings = ["train.max_steps=10", "checkpoint.every_steps=4"]
    expected = train_on_ranks(2, blended(tmp_path / "whole", dataset, filipino, *settings))
    killed = blended(tmp_path / "killed", dataset, filipino, *settings)
    with pytest.raises(RankError):
        train_on_ranks(2, killed, kill=("step", 6))
    assert exact(train_on_ranks(2, killed)) == exact(expected)
    start = read_metrics(tmp_path / "whole")[0]
    assert start["data"] == {str(dataset): 0.7, str(filipino): 0.3}
    assert "0.7" in (tmp_path / "whole" / "run.yaml").read_text()


def test_a_run_does_not_go_on_with_other_shares_but_may_with_moved_folders(dataset: Path, filipino: Path, tmp_path: Path) -> None:
    from nemo_ext.common.errors import DataError
    from nemo_ext.engine.resolve import resolve

    config = blended(tmp_path / "run", dataset, filipino, "train.max_steps=5")
    train_on_ranks(1, apply_overrides(config, ["train.stop_after_step=1"]))
    other = apply_overrides(config, [f"data.blend={json.dumps({str(dataset): 0.6, str(filipino): 0.4})}"])
    with pytest.raises(DataError, match=r"step_0000001 was trained on data with fingerprint \w{12}, but .* other shares"):
        resolve(other, 1)
    (tmp_path / "moved").symlink_to(dataset)
    moved = apply_overrides(config, [f"data.blend={json.dumps({str(tmp_path / 'moved'): 7, str(filipino): 3})}"])
    assert resolve(moved, 1).resume_from == tmp_path / "run" / "checkpoints" / "step_0000001"


def test_sequences_are_drawn_by_share(dataset: Path, filipino: Path, tmp_path: Path) -> None:
    import numpy

    train_on_ranks(1, blended(tmp_path, dataset, filipino, "train.max_steps=25"))
    [drawn] = (tmp_path / "index_cache").glob("*BlendedDataset-train-dataset_index.npy")
    assert numpy.bincount(numpy.load(drawn)).tolist() == [70, 30]
