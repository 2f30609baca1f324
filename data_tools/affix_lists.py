"""Affix lists for inspection: those of a language that `nemo_ext.tokenizers` carries, or a YAML file of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import nemo_ext.tokenizers
from data_tools.affix_cuts import KINDS
from nemo_ext.common.errors import ConfigError, DataError, nearest

SHIPPED = Path(nemo_ext.tokenizers.__file__).parent / "affixes"
FIELDS = {"prefix": "prefixes", "infix": "infixes", "suffix": "suffixes"}


def affixes_of_plugin(plugin: Mapping[str, Any]) -> str | None:
    """The language or file that a plugin of a manifest was told to use, if any."""
    settings = plugin["settings"]
    return settings.get("affixes") or settings.get("language")


def read_affixes(source: str) -> dict[str, list[str]]:
    """Affixes by kind, from a language that is shipped or a YAML file with the lists `prefixes`, `infixes` and `suffixes`.

    Raises ConfigError when there is neither, DataError when the file has another form.
    """
    path = SHIPPED / f"{source}.yaml"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        known = [found.stem for found in SHIPPED.glob("*.yaml")]
        raise ConfigError(f"--affixes {source!r} is neither a language that is shipped nor a file.{nearest(source, known)}")
    try:
        lists = yaml.safe_load(path.read_text(encoding="utf-8"))
        affixes = {kind: [form.lower() for form in lists.get(FIELDS[kind]) or ()] for kind in KINDS}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is no affix list ({type(error).__name__} {error}). Expected YAML with lists prefixes, infixes and suffixes."
        ) from None
    if not any(affixes.values()):
        raise DataError(f"{path} has no affix. Expected YAML with at least one of the lists prefixes, infixes and suffixes.")
    return affixes
