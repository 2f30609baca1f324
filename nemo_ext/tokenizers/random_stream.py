"""Random numbers of one document, the same whatever process draws them: a SplitMix64 stream keyed by (seed, document id).

A stream is an array `state` of one uint64, which drawing advances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled

State = NDArray[np.uint64]

# Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 14 and section 4 (variant 13 of Stafford)
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
UNIT_SHIFT, UNIT_STEP = np.uint64(11), 2.0**-53  # the 53 bits that a double holds


@compiled
def mixed(value: np.uint64) -> np.uint64:
    """SplitMix64's output function: a bijection of 64-bit numbers that looks random."""
    value = (value ^ (value >> SHIFTS[0])) * MULTIPLIERS[0]
    value = (value ^ (value >> SHIFTS[1])) * MULTIPLIERS[1]
    return value ^ (value >> SHIFTS[2])


@compiled
def restart(state: State, seed: np.uint64, document_id: np.uint64) -> None:
    """Begin the stream of a document."""
    state[0] = mixed(mixed(seed + GOLDEN_GAMMA) ^ document_id)


@compiled
def draw(state: State) -> np.uint64:
    """The next 64 random bits."""
    state[0] += GOLDEN_GAMMA
    return mixed(state[0])


@compiled
def below(state: State, limit: int) -> np.int64:
    """A uniform integer in 0..limit-1, for limits below 2**32: Lemire 2019, "Fast random integer generation in an interval"."""
    bound = np.uint64(limit)
    product = (draw(state) >> HALF) * bound
    if product & LOW_HALF < bound:
        rejected = (LOW_HALF - bound + np.uint64(1)) % bound  # 2**32 mod bound
        while product & LOW_HALF < rejected:
            product = (draw(state) >> HALF) * bound
    return np.int64(product >> HALF)


@compiled
def unit(state: State) -> np.float64:
    """A uniform number in [0, 1)."""
    return np.float64(draw(state) >> UNIT_SHIFT) * UNIT_STEP


def seed_bits(seed: int) -> np.uint64:
    """A seed of any size as the 64 bits that streams are keyed by."""
    return np.uint64(seed % 2**64)
