"""Arms of a study cannot be mixed up: what the settings say of the treatment is what the datasets hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.blend import Blend
from nemo_ext.common.dataset import DatasetInfo
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.registry import Registry
from nemo_ext.config import RunConfig, apply_overrides
from nemo_ext.tasks.treatment import check_treatment, describe_treatment, plugin_settings
from nemo_ext.tokenizers import plugins


@dataclass
class ShakeSettings:
    strength: float = 0.1
    kind: str = "soft"


class Shake:
    settings_type = ShakeSettings


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    builtin = {"vanilla": "nemo_ext.tokenizers.vanilla:Vanilla", "shake": f"{__name__}:Shake"}
    monkeypatch.setattr(plugins, "PLUGINS", Registry("tokenizer plugin", "sibol.tokenizers", builtin))


def prepared(name: str, **settings: Any) -> Blend:
    dataset = DatasetInfo(Path("made"), {}, "t", 10, 0, True, {"plugin": {"name": name, "settings": settings}})
    return Blend(((dataset, 1.0),))


def checked(data: Blend, *overrides: str) -> None:
    check_treatment(apply_overrides(RunConfig(), [f"data.{text}" for text in overrides]).data, data)


def test_what_fits_passes() -> None:
    checked(prepared("vanilla"))
    checked(prepared("shake", strength=0.3, kind="soft"))
    checked(prepared("shake", strength=0.3, kind="soft"), "plugin=shake", "plugin_settings.strength=0.3")
    checked(prepared("vanilla"), "plugin=vanilla")
    checked(prepared("vanilla"), "plugin_mode=online", "plugin=shake", "plugin_settings={strength: 1}")


@pytest.mark.parametrize(
    ("data", "overrides", "error", "message"),
    [
        (prepared("shake"), ["plugin_mode=online", "plugin=shake"], DataError, "made was prepared with plugin 'shake'"),
        (prepared("vanilla"), ["plugin_mode=online"], ConfigError, "needs a data.plugin"),
        (prepared("vanilla"), ["plugin_settings.strength=1"], ConfigError, "needs a data.plugin"),
        (prepared("vanilla"), ["plugin_mode=online", "plugin=vanilla"], ConfigError, "would change nothing"),
        (prepared("vanilla"), ["plugin=shake"], DataError, "plugin {'name': 'shake'}, but made was prepared with {'name': 'vanilla'}"),
        (prepared("shake", strength=0.3), ["plugin=shake", "plugin_settings.strength=0.2"], DataError, "'strength': 0.2}, but made was"),
        (prepared("vanilla"), ["plugin_mode=online", "plugin=shack"], ConfigError, "Did you mean 'shake'"),
        (prepared("vanilla"), ["plugin_mode=online", "plugin=shake", "plugin_settings.strenght=1"], ConfigError, "Did you mean 'strength'"),
        (prepared("vanilla"), ["plugin_mode=online", "plugin=shake", "plugin_settings.strength=high"], ConfigError, "does not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(data: Blend, overrides: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        checked(data, *overrides)
    assert message in str(caught.value)


def test_settings_are_completed_and_described() -> None:
    config = apply_overrides(RunConfig(), ["data.plugin_mode=online", "data.plugin=shake", "data.plugin_settings.kind='a b'"]).data
    assert plugin_settings(config) == {"strength": 0.1, "kind": "a b"}
    assert describe_treatment(config) == "plugin   shake (strength=0.1, kind=a b) anew in every epoch, seed 1234; validation as stored\n"
    assert describe_treatment(RunConfig().data) == ""
