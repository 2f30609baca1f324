"""A training run on real ranks that runs out of time stops by itself, is saved, and ends as if it had never been stopped."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.files import read_json
from nemo_ext.config import RunConfig, from_yaml, to_yaml
from nemo_ext.engine.launch import free_port
from nemo_ext.engine.run_folder import RunFolder
from tests.support.ranks import run_ranks
from tests.support.training import exact, small_run, train_on_ranks

SETTINGS = ["train.max_steps=12", "checkpoint.every_steps=1", "validation.every_steps=3", "checkpoint.keep_last=0"]
SHORTEST_S = 6.0


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of the run when nothing stops it."""
    folder = tmp_path_factory.mktemp("whole")
    figures = train_on_ranks(2, small_run(folder, dataset, *SETTINGS))
    assert read_json(RunFolder(folder).done) == {"step": 12}
    return figures


def test_a_run_stops_before_its_deadline_and_finishes_bit_identical(whole: list[dict[str, Any]], dataset: Path, tmp_path: Path) -> None:
    config, folder = small_run(tmp_path, dataset, *SETTINGS), RunFolder(tmp_path)
    # three times what all of it took on this machine just now, of which naps between the steps leave a part
    allotted_s = max(SHORTEST_S, 3 * max(line.get("wall_s", 0) for line in whole))
    left_s = run_ranks(2, _train_against_time, _settings(config, tmp_path), free_port(), allotted_s, timeout_s=240.0)
    assert min(left_s) > 0, f"left {-min(left_s):.1f} s after the deadline"
    [step] = folder.steps()[-1:]
    assert 0 < step < 12
    assert read_json(folder.requeue) == {"step": step, "first_step": 0, "reason": "deadline"}
    assert not folder.done.exists()
    assert exact(train_on_ranks(2, config)) == exact(whole)
    assert read_json(folder.done) == {"step": 12}
    assert not folder.requeue.exists()


@pytest.mark.parametrize(("word", "continues"), [("requeue", True), ("", False)], ids=["of_the_scheduler", "of_a_person"])
def test_a_stop_file_stops_a_run_with_a_checkpoint(
    word: str, continues: bool, whole: list[dict[str, Any]], dataset: Path, tmp_path: Path
) -> None:
    config, folder = small_run(tmp_path, dataset, *SETTINGS), RunFolder(tmp_path)
    run_ranks(2, _train_against_time, _settings(config, tmp_path), free_port(), None, word, timeout_s=240.0)
    assert folder.steps()[-1] == 4
    assert folder.requeue.exists() == continues
    assert not folder.stop.exists()
    assert exact(train_on_ranks(2, config)) == exact(whole)


def _settings(config: RunConfig, folder: Path) -> str:
    path = folder / "settings.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return str(path)


def _train_against_time(settings: str, port: int, allotted_s: float | None, word: str = "") -> float:
    """Train with slow steps against a deadline, or with a stop-file that holds `word`; returns the seconds that were left."""
    import lightning.pytorch as pl
    import torch

    from nemo_ext.engine.train import train

    deadline_s = 0.0
    config = from_yaml(settings)

    class SlowSteps(pl.Callback):
        def on_train_start(self, *args: Any) -> None:
            nonlocal deadline_s
            if allotted_s is not None:
                deadline_s = time.time() + allotted_s
                os.environ["SIBOL_JOB_DEADLINE"] = str(deadline_s)

        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if allotted_s is not None:
                time.sleep(allotted_s / 10)
            elif trainer.global_step == 4 and trainer.is_global_zero:
                RunFolder(config.output_dir).stop.write_text(word)

    torch.distributed.destroy_process_group()  # the engine makes its own
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    result = train(config, int(os.environ["WORLD_SIZE"]), [SlowSteps()])
    assert not result.finished
    return deadline_s - time.time()
