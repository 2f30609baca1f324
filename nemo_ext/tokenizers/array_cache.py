"""Arrays computed from a tokenizer, kept in the user's cache folder: one .npz per tokenizer, kind and schema version.

The cache is a convenience. What is missing, damaged or cannot be written costs the time to compute it again, nothing else.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from nemo_ext.common.errors import DiskFullError
from nemo_ext.common.files import atomic_file

Arrays = TypeVar("Arrays", bound=tuple)  # a NamedTuple of arrays
SCHEMA = 1  # raise it whenever the meaning of any cached array changes


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/sibol`, by default `~/.cache/sibol` (XDG Base Directory Specification 0.8)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sibol"


def cached(kind: type[Arrays], fingerprint: str, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays of a `kind` (a NamedTuple type) for the tokenizer with this fingerprint, from the cache or by `compute`."""
    path = cache_folder() / f"{kind.__name__}-{SCHEMA}-{fingerprint}.npz"
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    try:
        with np.load(path, allow_pickle=False) as saved:
            return kind(*[saved[name] for name in fields])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent, cut off, or its checksums do not fit
        arrays = compute()
    try:
        with atomic_file(path, "wb") as handle:
            np.savez(handle, **dict(zip(fields, arrays, strict=True)))
    except (OSError, DiskFullError):
        pass  # a read-only or full home folder must not stop the work
    return arrays
