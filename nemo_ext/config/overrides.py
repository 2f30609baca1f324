"""`key.sub=value` overrides and YAML for RunConfig, typed and checked, with errors that name the nearest key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ext.common.errors import ConfigError, nearest
from nemo_ext.config.schema import RunConfig

FREE_FORM = ("model.overrides.", "data.plugin_settings.")  # mappings whose keys are not ours to know


def known_keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all leaf settings of a config dataclass."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from known_keys(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def apply_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A copy of `config` with `key.sub=value` applied in order; values are YAML (`null`, `true`, `3e-4`, `[1, 2]`).

    Raises ConfigError for a missing `=`, an unknown key (naming the nearest) and a value of the wrong type.
    """
    tree = OmegaConf.structured(config)
    keys = list(known_keys(config))
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"Override {text!r} has no '='. Write it as key.sub=value, for example train.max_steps=100.")
        _check_key(key, keys)
        try:
            OmegaConf.update(tree, key, _parse(raw, text), merge=False, force_add=key.startswith(FREE_FORM))
        except (OmegaConfBaseException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"Override {text!r}: the value {raw!r} does not fit {key} ({_type_of(config, key)}). {reason}.") from None
    return OmegaConf.to_object(tree)  # type: ignore[return-value]


def _check_key(key: str, keys: list[str]) -> None:
    if key in keys or key.startswith(FREE_FORM):
        return
    inside = [known for known in keys if known.startswith(key + ".")]
    if inside:
        raise ConfigError(f"{key!r} is a group of settings. Set one of: {', '.join(inside)}.")
    leaf_matches = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f" Did you mean {' or '.join(map(repr, leaf_matches))}?" if leaf_matches else nearest(key, keys)
    raise ConfigError(f"Unknown setting {key!r}.{hint} `sibol show RECIPE` lists all.")


def _parse(raw: str, text: str) -> Any:
    try:
        return OmegaConf.from_dotlist([f"value={raw}"])["value"] if raw.strip() else ""
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"Override {text!r}: {raw!r} is not valid YAML ({str(error).splitlines()[0]}). Quote it.") from None


def _type_of(config: Any, key: str) -> str:
    *groups, leaf = key.split(".")
    for group in groups:
        config = getattr(config, group, config)
    found = {item.name: item.type for item in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    return f"expected {found[leaf]}" if leaf in found else "free-form value"


def to_yaml(config: RunConfig) -> str:
    """The whole config as YAML, in the order of the dataclasses."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(path: Path | str) -> RunConfig:
    """Read a config written by `to_yaml`. Raises ConfigError naming the file and the unknown or mistyped setting."""
    path = Path(path)
    try:
        loaded = OmegaConf.load(path)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), loaded))  # type: ignore[return-value]
    except FileNotFoundError:
        raise ConfigError(f"No such file: {path}. A run folder has its settings in run.yaml.") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a valid run configuration: {str(error).splitlines()[0]}.") from None
