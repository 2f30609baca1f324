"""Errors for mistakes that a user can mend.

Every message says what is wrong, the value found, what was expected and what to do. The command line prints the
message without a traceback and exits with `exit_code`. Bugs of our own raise `AssertionError` or whatever they raise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SibolError(Exception):
    """Base of all errors that are shown to the user as one message."""

    exit_code = 1


class ConfigError(SibolError):
    """A recipe, an override or a value in the configuration is wrong."""

    exit_code = 2


class DataError(SibolError):
    """An input file or a dataset is missing, damaged or does not fit."""


class CheckpointError(SibolError):
    """A checkpoint is missing, incomplete or does not fit the run."""


class ConversionError(SibolError):
    """Weights or configuration cannot be carried over exactly."""


class OutputExistsError(SibolError):
    """The place to write to is taken."""


class DiskFullError(SibolError):
    """The file system has no space left."""


class VersionError(SibolError):
    """An installed package is missing or is not the version this code was validated for."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'a' or 'b'?` for the names nearest to `name`, or the sorted list of known names when none is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.72)
    if close:
        return " Did you mean " + " or ".join(repr(match) for match in close) + "?"
    return " Known: " + (", ".join(names) if names else "(none)") + "."
