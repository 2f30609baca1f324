"""Names to objects, imported only when asked for, and open to other packages through entry points."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load_object(reference: str) -> Any:
    """The object that `"package.module:attribute"` names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def installed(group: str) -> Iterable[EntryPoint]:
    """What installed packages offer under an entry-point group."""
    from importlib.metadata import entry_points  # slow to import, and no command line needs it for its help

    return entry_points(group=group)


class Registry:
    """A kind of thing (tokenizer plugin, model family, task, suite), by name.

    `builtin` maps names to `"module:object"`; packages add their own under the entry-point group `group`. A name that
    both have is ours, so that an installed package cannot change what a recipe of this project means.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted({*self._builtin, *(point.name for point in installed(self.group))})

    def get(self, name: str) -> Any:
        """The object called `name`. Raises ConfigError with the nearest names when there is none."""
        if name in self._builtin:
            return load_object(self._builtin[name])
        for point in installed(self.group):
            if point.name == name:
                return point.load()
        raise ConfigError(f"Unknown {self.kind} {name!r}.{nearest(name, self.names())}")
