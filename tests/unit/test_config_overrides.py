"""Overrides are typed and checked, and errors name the nearest setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig, apply_overrides, from_yaml, known_keys, to_yaml


def test_values_are_parsed_as_yaml_into_the_settings_type() -> None:
    config = apply_overrides(
        RunConfig(),
        [
            "train.max_steps=7",
            "optimizer.learning_rate=1e-4",
            "logging.progress=no",
            "checkpoint.every_steps=null",
            "name=123",
            "data.path=/a b",
        ],
    )
    assert (config.train.max_steps, config.optimizer.learning_rate, config.logging.progress) == (7, 1e-4, False)
    assert (config.checkpoint.every_steps, config.name, config.data.path) == (None, "123", "/a b")


def test_fields_of_the_hugging_face_config_are_free_form() -> None:
    config = apply_overrides(RunConfig(), ["model.overrides.hidden_size=64", "model.overrides.rope_scaling={factor: 2}"])
    assert config.model.overrides == {"hidden_size": 64, "rope_scaling": {"factor": 2}}


def test_the_original_is_not_changed() -> None:
    original = RunConfig()
    apply_overrides(original, ["train.max_steps=7"])
    assert original == RunConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.max_steps=3", "Unknown setting 'trian.max_steps'. Did you mean 'train.max_steps'?"),
        ("max_steps=3", "Did you mean 'train.max_steps'?"),
        ("train.max_step=3", "Did you mean 'train.max_steps'"),
        ("train=3", "'train' is a group of settings. Set one of: train.max_steps"),
        ("train.max_steps=abc", "the value 'abc' does not fit train.max_steps (expected int)"),
        ("train.max_steps=2.5", "the value '2.5' does not fit train.max_steps (expected int)"),
        ("logging.progress=maybe", "does not fit logging.progress (expected bool)"),
        ("train.max_steps=[", "is not valid YAML"),
        ("train.max_steps", "has no '='. Write it as key.sub=value"),
    ],
)
def test_a_wrong_override_says_what_is_wrong_and_what_would_be_right(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RunConfig(), [override])
    assert message in str(caught.value)


@given(steps=st.integers(1, 10**6), rate=st.floats(1e-9, 1.0), name=st.text("abcdefgh ñ:'\"#-", min_size=1), seed=st.integers(0, 2**31))
def test_yaml_keeps_every_setting(steps: int, rate: float, name: str, seed: int) -> None:
    import tempfile

    config = RunConfig(name=name)
    config.train.max_steps, config.train.seed, config.optimizer.learning_rate = steps, seed, rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(to_yaml(config), encoding="utf-8")
        assert from_yaml(path) == config


def test_a_yaml_file_with_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train:\n  max_stepz: 3\n")
    with pytest.raises(ConfigError, match=r"run.yaml is not a valid run configuration.*max_stepz"):
        from_yaml(path)
    with pytest.raises(ConfigError, match=r"No such file: .*absent\.yaml"):
        from_yaml(tmp_path / "absent.yaml")


def test_every_setting_has_a_help_text() -> None:
    from nemo_ext.config.schema import explain_settings

    texts = {key: meaning for key, _, meaning in explain_settings(RunConfig())}
    assert set(texts) == set(known_keys(RunConfig()))
    assert all(texts.values())


def test_a_mapping_is_replaced_as_a_whole() -> None:
    config = apply_overrides(RunConfig(), ["model.overrides={hidden_size: 64, head_dim: 16}", "model.overrides={head_dim: 8}"])
    assert config.model.overrides == {"head_dim": 8}
