"""Affixes of a language, from its data file in `affixes/` or from a file of the user's, as arrays for compiled code.

An affix file is YAML with the lists `prefixes`, `infixes` and `suffixes`, in lower case and without hyphens.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from nemo_ext.common.errors import ConfigError, nearest

FOLDER = Path(__file__).parent / "affixes"
KINDS = ("prefixes", "infixes", "suffixes")
PREFIX, INFIX, SUFFIX, ANYWHERE = range(4)
MARKS = {PREFIX: "{}-", INFIX: "-{}-", SUFFIX: "-{}"}


class Affixes(NamedTuple):
    """Surface forms, sorted by kind and first byte: form f is `data[offsets[f]:offsets[f + 1]]`, of the affix `affix[f]`.

    Forms `first[kind, byte]` to `first[kind, byte + 1] - 1` are those of a kind that begin with a byte.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    affix: NDArray[np.int64]
    first: NDArray[np.int64]


def languages() -> list[str]:
    """Languages that have an affix file here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_affixes(language: str, path: str | None) -> list[tuple[int, str]]:
    """(kind, affix) of the file `path`, or of the language's own. Raises ConfigError when there is none, or it is no affix file."""
    file = Path(path) if path else FOLDER / f"{language}.yaml"
    if not path and language not in languages():
        raise ConfigError(
            f"There is no affix list for language={language!r}.{nearest(language, languages())} Or name a file: affixes=PATH."
        )
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Affix file {file} cannot be read ({str(error).splitlines()[0]}). Check affixes=PATH.") from None
    lists = isinstance(found, dict) and all(isinstance(forms or [], list) for forms in found.values())
    if not lists or not found or not set(found) <= set(KINDS):
        raise ConfigError(f"Affix file {file}: expected the lists {', '.join(KINDS)}, found {describe(found)}.")
    affixes = [(kind, affix) for kind, name in enumerate(KINDS) for affix in found.get(name) or ()]
    for _, affix in affixes:
        if not isinstance(affix, str) or not affix.isalpha() or affix != affix.lower():
            raise ConfigError(
                f"Affix file {file}: {affix!r} is no affix. Write lower-case letters without hyphens, in quotes where YAML needs them."
            )
    return list(dict.fromkeys(affixes))


def describe(found: Any) -> str:
    """What a YAML file holds, in few words."""
    return ", ".join(map(repr, list(found)[:8])) if isinstance(found, dict) else f"a {type(found).__name__}"


def positional_forms(affixes: Iterable[tuple[int, str]]) -> Affixes:
    """Every affix as it is, to be matched by its position whatever its case."""
    return _arrays([(kind, affix.encode("utf-8"), number) for number, (kind, affix) in enumerate(affixes)])


def blind_forms(affixes: Iterable[tuple[int, str]]) -> Affixes:
    """The study's surface forms, to be matched anywhere: prefixes with and without a space before and capital, suffixes with and without
    a space after them."""
    forms = []
    for number, (kind, affix) in enumerate(affixes):
        capital = affix[0].upper() + affix[1:]
        written = {PREFIX: (affix, " " + affix, capital, " " + capital), INFIX: (affix,), SUFFIX: (affix, affix + " ")}[kind]
        forms += [(ANYWHERE, form.encode("utf-8"), number) for form in written]
    return _arrays(forms)


def _arrays(forms: list[tuple[int, bytes, int]]) -> Affixes:
    forms = sorted(forms)
    keys = [kind * 257 + form[0] for kind, form, _ in forms]
    first = np.searchsorted(keys, np.arange(4 * 257)).reshape(4, 257)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(form) for _, form, _ in forms])]).astype(np.int64)
    data = np.frombuffer(b"".join(form for _, form, _ in forms), dtype=np.uint8)
    return Affixes(data, offsets, np.array([number for *_, number in forms], dtype=np.int64), first.astype(np.int64))
