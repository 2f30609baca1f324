"""Which checkpoint a run continues from, and what it may not change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import CheckpointError, ConfigError, OutputExistsError
from nemo_ext.config import RunConfig, apply_overrides, to_yaml
from nemo_ext.engine.run_folder import FIXED_KEYS, RunFolder, changed_settings, checkpoint_to_resume, read_state, refuse_other_run


def run_in(folder: Path, *steps: int) -> RunConfig:
    config = apply_overrides(RunConfig(), [f"output_dir={folder}"])
    for step in steps:
        checkpoint = RunFolder(folder).checkpoint(step)
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"schema": "sibol.checkpoint/1", "step": step}))
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(to_yaml(config))
    return config


def test_the_newest_complete_checkpoint_is_resumed_and_incomplete_ones_are_invisible(tmp_path: Path) -> None:
    config = run_in(tmp_path, 5, 100, 20)
    (RunFolder(tmp_path).partial_checkpoint(200)).mkdir()
    (RunFolder(tmp_path).partial_checkpoint(200) / "state.json").write_text("{}")
    RunFolder(tmp_path).checkpoint(300).mkdir()  # without state.json
    (tmp_path / "checkpoints" / "notes").mkdir()
    assert RunFolder(tmp_path).steps() == [5, 20, 100]
    assert checkpoint_to_resume(config) == RunFolder(tmp_path).checkpoint(100)
    RunFolder(tmp_path).remove_leftovers()
    assert not RunFolder(tmp_path).partial_checkpoint(200).exists()


def test_resume_must_and_never_are_obeyed(tmp_path: Path) -> None:
    empty = run_in(tmp_path / "empty")
    assert checkpoint_to_resume(empty) is None
    with pytest.raises(CheckpointError, match=r"resume=must, but .* holds no complete checkpoint"):
        checkpoint_to_resume(apply_overrides(empty, ["checkpoint.resume=must"]))
    full = run_in(tmp_path / "full", 7)
    with pytest.raises(OutputExistsError, match=r"holds a checkpoint of step 7. Choose another output_dir"):
        checkpoint_to_resume(apply_overrides(full, ["checkpoint.resume=never"]))


@pytest.mark.parametrize(
    "override", ["train.seq_length=64", "train.seed=7", "model.overrides.hidden_size=96", "train.global_batch_size=16"]
)
def test_another_run_in_the_same_folder_is_refused(override: str, tmp_path: Path) -> None:
    config = run_in(tmp_path, 3)
    with pytest.raises(
        ConfigError, match=r"holds another run \((train|model)\..* in the run folder, .* asked for\)\. Choose another output_dir"
    ):
        checkpoint_to_resume(apply_overrides(config, [override]))


def test_settings_that_do_not_make_it_another_run_may_change() -> None:
    changed = apply_overrides(RunConfig(), ["parallel.tp=2", "train.max_steps=500", "optimizer.learning_rate=1e-5"])
    refuse_other_run(changed, RunConfig())
    assert set(changed_settings(changed, RunConfig())) == {"parallel.tp", "train.max_steps", "optimizer.learning_rate"}


def test_the_fixed_settings_exist() -> None:
    from nemo_ext.config import known_keys

    assert set(FIXED_KEYS) <= set(known_keys(RunConfig()))


def test_a_checkpoint_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"schema": "sibol.checkpoint/9"}')
    with pytest.raises(CheckpointError, match=r"has schema 'sibol.checkpoint/9', expected 'sibol.checkpoint/1'"):
        read_state(tmp_path)


@given(step=st.integers(0, 10**9))
def test_any_step_is_found_under_its_name(step: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run_in(Path(folder), step)
        assert RunFolder(folder).steps() == [step]
