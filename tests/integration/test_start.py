"""Where a run starts from: read once, proven to be in the model, carried along, and not needed any more."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import ModelConfig, RunConfig, apply_overrides
from nemo_ext.convert.export import export_run
from nemo_ext.engine.resolve import resolve
from nemo_ext.engine.run_folder import RunFolder
from nemo_ext.tokenizers import load
from tests.support.tiny_models import QWEN2, write_random_hf_model
from tests.support.training import exact, small_run, train_on_ranks

LICENCES = {"LICENSE": "you may", "NOTICE.txt": "thanks", "USE_POLICY.md": "be kind"}


def write_start(folder: Path, dataset: Path) -> Path:
    """A random model for the dataset's tokenizer, with licence files."""
    data = open_dataset(dataset)
    write_random_hf_model(folder, {**QWEN2, "num_hidden_layers": 4, "vocab_size": data.vocab_size})
    load(data.tokenizer_dir).copy(folder)
    for name, text in LICENCES.items():
        (folder / name).write_text(text)
    return folder


def run_from(start: Path, folder: Path, dataset: Path, *overrides: str) -> RunConfig:
    return replace(small_run(folder, dataset, "train.max_steps=4", *overrides), model=ModelConfig(init_from=str(start)))


def test_a_resumed_run_needs_nothing_of_what_it_started_from(dataset: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "hf", dataset)
    whole = train_on_ranks(1, run_from(start, tmp_path / "whole", dataset))
    train_on_ranks(1, run_from(start, tmp_path / "run", dataset, "train.stop_after_step=2"))
    shutil.rmtree(start)
    assert exact(train_on_ranks(1, run_from(start, tmp_path / "run", dataset))) == exact(whole)


def test_a_source_that_was_rewritten_does_not_change_a_resumed_run(dataset: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "hf", dataset)
    config = run_from(start, tmp_path / "run", dataset)
    train_on_ranks(1, apply_overrides(config, ["train.stop_after_step=1"]))
    before = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    (start / "config.json").write_text(json.dumps({**before, "rms_norm_eps": 0.1}))
    assert resolve(config, 1).hf_config["rms_norm_eps"] == before["rms_norm_eps"]
    train_on_ranks(1, config)
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text()) == before


def test_licences_of_the_start_reach_the_run_and_its_export(dataset: Path, tmp_path: Path) -> None:
    train_on_ranks(1, run_from(write_start(tmp_path / "hf", dataset), tmp_path / "run", dataset))
    export_run(tmp_path / "run", tmp_path / "out", verify=False)
    for name, text in LICENCES.items():
        assert (tmp_path / "run" / "model" / name).read_text() == text
        assert (tmp_path / "out" / name).read_text() == text


def test_more_steps_over_several_epochs_are_refused_because_they_would_reorder_the_data(dataset: Path, tmp_path: Path) -> None:
    config = small_run(tmp_path, dataset)
    checkpoint = RunFolder(tmp_path).checkpoint(5)
    checkpoint.mkdir(parents=True)
    state = {"schema": "sibol.checkpoint/1", "step": 5, "max_steps": 20, "dataset_fingerprint": open_dataset(dataset).fingerprint}
    (checkpoint / "state.json").write_text(json.dumps(state))
    from nemo_ext.config import to_yaml
    from nemo_ext.engine.resolve import write_run_folder

    (tmp_path / "run.yaml").write_text(to_yaml(config))
    fresh = resolve(small_run(tmp_path / "other", dataset), 1)
    write_run_folder(fresh)
    shutil.copytree(tmp_path / "other" / "model", tmp_path / "model")
    epoch = open_dataset(dataset).splits["train"].tokens // (32 * 4)
    assert resolve(apply_overrides(config, [f"train.max_steps={epoch - epoch // 50}"]), 1).resume_from == checkpoint
    with pytest.raises(ConfigError, match=r"of 20 steps, .*order of the data depends on the number of steps.*Keep train.max_steps=20"):
        resolve(apply_overrides(config, [f"train.max_steps={epoch + 1}"]), 1)
