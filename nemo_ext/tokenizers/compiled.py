"""Functions compiled to machine code by numba, kept on disk between runs: the loops over tokens that NumPy cannot express.

Compilation happens at a function's first call; later processes load the result from `__pycache__`, or from the user's cache folder
where the package cannot be written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled without the interpreter lock. Integer constants that meet a uint64 must be uint64 themselves."""
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # numba found no folder that it may write to, so every process compiles for itself
        return numba.njit(function, nogil=True)
