"""A run as a NeMo-Run partial trains like the run itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nemo_ext.config import RunConfig, from_yaml, to_yaml
from nemo_ext.engine.launch import free_port
from nemo_ext.engine.nemo_recipe import as_nemo_recipe
from tests.support.ranks import run_ranks
from tests.support.training import exact, read_metrics, small_run, train_on_ranks


def _run_partial(settings: Path, port: int) -> Any:
    import fiddle
    import torch

    torch.distributed.destroy_process_group()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    recipe = as_nemo_recipe(from_yaml(settings))
    recipe.config.train.max_steps = 3  # settings stay fields that a launcher's command line can change
    return fiddle.build(recipe)()


def test_the_partial_trains_the_same_run(dataset: Path, tmp_path: Path) -> None:
    short = ["train.max_steps=3", "schedule.warmup_steps=1"]
    expected = train_on_ranks(1, small_run(tmp_path / "expected", dataset, *short))
    settings = tmp_path / "run.yaml"
    settings.write_text(to_yaml(small_run(tmp_path / "partial", dataset, "schedule.warmup_steps=1")))
    assert run_ranks(1, _run_partial, settings, free_port()) == [0]
    assert exact(read_metrics(tmp_path / "partial")) == exact(expected)


def test_every_group_of_settings_is_configurable() -> None:
    import fiddle

    recipe = as_nemo_recipe(RunConfig())
    recipe.config.optimizer.learning_rate = 1e-5
    built = fiddle.build(recipe.config)
    assert isinstance(built, RunConfig) and built.optimizer.learning_rate == 1e-5
