"""Affix lists for inspection: those of a language that `nemo_ext.tokenizers` carries, or a YAML file of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_tools.affix_cuts import KINDS
from nemo_ext.tokenizers.affix_lists import languages
from nemo_ext.tokenizers.affix_lists import read_affixes as read_pairs


def affixes_of_plugin(plugin: Mapping[str, Any]) -> str | None:
    """The language or file that a plugin of a manifest was told to use, if any."""
    settings = plugin["settings"]
    return settings.get("affixes") or settings.get("language")


def read_affixes(source: str) -> dict[str, list[str]]:
    """Affixes by kind, of a language or from a file. Raises ConfigError when there is neither, or it is no affix list."""
    pairs = read_pairs(source, None if source in languages() else source)
    return {kind: [affix for number, affix in pairs if number == position] for position, kind in enumerate(KINDS)}
