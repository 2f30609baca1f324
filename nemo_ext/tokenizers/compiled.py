"""Functions compiled to machine code by numba, kept on disk between runs: the loops over tokens that NumPy cannot express.

They are compiled without reference counts, which took half of their time: they allocate nothing, and work in the arrays they are given.
Compilation happens at a function's first call: half a minute for all of Patok, once, and said. numba itself would go on using what was
compiled from an older version of a function that is called from another file, so what is kept belongs to one state of all the sources in
this folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from nemo_ext.tokenizers.array_cache import cache_folder

UNUSED_S = 30 * 24 * 3600

logger = logging.getLogger(__name__)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled, free of the interpreter lock. Integer constants that meet a uint64 must be uint64 themselves."""
    return _jit(function, inline=False)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled` for a few lines that inner loops call: put into every caller."""
    return _jit(function, inline=True)


def _jit(function: Callable[..., Any], inline: bool) -> Any:
    njit: Any = numba.njit
    config: Any = numba.config
    options = {"nogil": True, "_nrt": False, "error_model": "numpy", "forceinline": inline}
    folder = machine_code_folder()
    if folder is None:
        return njit(function, **options)
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        return njit(function, cache=True, **options)
    finally:
        config.CACHE_DIR = before


@cache
def sources_digest() -> str:
    """Hex SHA-256 of the sources in this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def machine_code_folder() -> Path | None:
    """Where machine code of these sources is kept, or None when nothing can be written there."""
    folder = cache_folder() / f"machine-code-{sources_digest()[:16]}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        with contextlib.suppress(OSError):
            os.utime(folder)  # so that it counts as used
        return folder
    except OSError:
        return None
    remove_unused(folder.parent)
    logger.warning("Compiling tokenizer plugins for this machine, once: up to half a minute. Kept in %s", folder)
    return folder


def remove_unused(caches: Path) -> None:
    """Remove machine code that no process has asked for in UNUSED_S: that of older versions of these sources."""
    for folder in caches.glob("machine-code-*"):
        with contextlib.suppress(FileNotFoundError):  # another process removes it
            if time.time() - folder.stat().st_mtime > UNUSED_S:
                shutil.rmtree(folder, ignore_errors=True)
