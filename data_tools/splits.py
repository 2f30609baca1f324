"""Train, validation and test by the hash of a document's id: no randomness, no dependence on order, files or workers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.errors import ConfigError

SPLIT_NAMES = ("train", "validation", "test")
BITS = 63  # one fewer than a document number has, so that the last limit still fits an unsigned 64-bit integer


def parse_split(text: str, option: str = "--split") -> tuple[int, int, int]:
    """Limits in [0, 2**63] below which a document belongs to each split, from shares like "98,1,1" or "0.9,0.1,0".

    Raises ConfigError unless there are three numbers, none negative, the first above zero.
    """
    expected = f"{option} {text!r}: expected three shares (train, validation, test), none negative and train above zero, such as 98,1,1."
    try:
        shares = [Fraction(part.strip()) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise ConfigError(expected) from None
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0:
        raise ConfigError(expected)
    total, limits = sum(shares), []
    for position in range(3):
        limits.append(int(sum(shares[: position + 1]) / total * (1 << BITS)))
    return limits[0], limits[1], limits[2]


def assign(numbers: NDArray[np.uint64], limits: tuple[int, int, int]) -> NDArray[np.int64]:
    """Index into SPLIT_NAMES of every document number."""
    return np.searchsorted(np.array(limits[:2], dtype=np.uint64), numbers >> np.uint64(64 - BITS), side="right")
