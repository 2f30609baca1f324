"""Which tokenizer plugin treats the training data, and when: beforehand in the dataset (offline), or anew in every epoch (online)."""

from __future__ import annotations

import json
from typing import Any

from nemo_ext.common.blend import Blend
from nemo_ext.common.dataset import DatasetInfo
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.config import DataConfig
from nemo_ext.tokenizers import plugins

UNTREATED = "vanilla"


def plugin_settings(config: DataConfig) -> dict[str, Any]:
    """All settings of `data.plugin`, those of `data.plugin_settings` filled up with defaults. Raises ConfigError for wrong ones."""
    assert config.plugin is not None
    return plugins.parse_settings(config.plugin, [f"{key}={json.dumps(value)}" for key, value in config.plugin_settings.items()])


def check_treatment(config: DataConfig, data: Blend) -> None:
    """Raise ConfigError or DataError unless the datasets are what the settings of the plugin need.

    Online, they must be untreated: a second treatment would meet ids that no tokenizer gives. Offline, `data.plugin`, when set, is
    what they must have been prepared with, so that the arms of a study cannot be mixed up.
    """
    if config.plugin is None:
        if config.plugin_mode == "online" or config.plugin_settings:
            raise ConfigError(
                f"data.plugin_mode={config.plugin_mode} with data.plugin_settings={config.plugin_settings} needs a data.plugin."
            )
        return
    wanted = plugin_settings(config)
    if config.plugin_mode == "online" and config.plugin == UNTREATED:
        raise ConfigError(f"data.plugin_mode=online with data.plugin={UNTREATED} would change nothing. Leave data.plugin_mode out.")
    for dataset in data.datasets:
        if config.plugin_mode == "online" and dataset.plugin != UNTREATED:
            raise DataError(
                f"data.plugin_mode=online needs untreated datasets, but {dataset.path} was prepared with plugin {dataset.plugin!r}. "
                f"Prepare it again with `--plugin {UNTREATED}`, or use data.plugin_mode=offline."
            )
        if config.plugin_mode == "offline":
            _require_prepared(config, dataset, wanted)


def describe_treatment(config: DataConfig) -> str:
    """What training does to the data, as a line; nothing when it takes them as they are."""
    if config.plugin_mode == "offline":
        return ""
    settings = ", ".join(f"{key}={value}" for key, value in plugin_settings(config).items())
    return f"plugin   {config.plugin} ({settings}) anew in every epoch, seed {config.plugin_seed}; validation as stored\n"


def _require_prepared(config: DataConfig, dataset: DatasetInfo, wanted: dict[str, Any]) -> None:
    expected = {"name": config.plugin} | {key: wanted[key] for key in config.plugin_settings}
    found = {"name": dataset.plugin} | {key: dataset.plugin_settings.get(key) for key in config.plugin_settings}
    if found != expected:
        raise DataError(
            f"The settings ask for data prepared with plugin {expected}, but {dataset.path} was prepared with {found}. "
            "Prepare it so, name another dataset, or use data.plugin_mode=online."
        )
