"""Paired comparison of two models, each of one or several training seeds, on the same items.

With one seed per side only the items vary: percentile bootstrap over items, and a sign-flip test. With several seeds on a side
the variance of the difference is the sum of that over items and that over seeds, each divided by its number, and the interval is
Student's with Welch and Satterthwaite's degrees of freedom. What seeds and items have in common is counted twice then, so that
interval is a little too wide rather than too narrow, as in the pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.statistics import Bootstrap, FloatArray

EXACT_PAIRS = 12  # up to here all 2**n sign patterns are counted
SIGN_PATTERNS = 9999  # drawn for more pairs: p-values are known to about 1e-4
SIGNS_AT_ONCE = 1 << 22
ROUNDING = 1e-12  # two sums that differ by less, relatively, are the same sum


@dataclass(frozen=True)
class Difference:
    """Second minus first. `p_value`: two-sided, of no difference. Errors are standard errors; None where nothing is known of it."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    item_error: float | None
    seed_error: float | None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


def compare_pairs(first: FloatArray, second: FloatArray, weights: FloatArray, resamples: int, confidence: float, seed: int) -> Difference:
    """Compare `first` `[seeds, items]` with `second` `[seeds, items]`: scores, of which a sum over the sum of `weights` is the figure."""
    means = [scores.mean(axis=0) for scores in (first, second)]
    differences = means[1] - means[0]
    total = float(weights.sum())
    value = float(differences.sum() / total)
    if len(weights) < 2:
        return Difference(value, None, None, None, None, _seed_error(first, second, total))
    residuals = differences - value * weights
    items = len(weights)
    item_variance = float((residuals**2).sum() * items / (items - 1) / total**2)
    if len(first) == len(second) == 1:
        bootstrap = Bootstrap(np.stack([means[1], means[0], weights], axis=1), resamples, confidence, seed)
        interval = bootstrap.interval(lambda sums: (sums[..., 0] - sums[..., 1]) / sums[..., 2])
        p_value = sign_flip_p_value(differences, seed)
        return Difference(value, interval.low, interval.high, p_value, math.sqrt(item_variance), None)
    parts = [(item_variance, items - 1)] + [
        (_seed_variance(scores, total), len(scores) - 1) for scores in (first, second) if len(scores) > 1
    ]
    low, high, p_value = _student(value, parts, confidence)
    return Difference(value, low, high, p_value, math.sqrt(item_variance), _seed_error(first, second, total))


def _seed_variance(scores: FloatArray, total: float) -> float:
    """Variance of the mean over seeds of the figure."""
    figures = scores.sum(axis=1) / total
    return float(figures.var(ddof=1) / len(figures))


def _seed_error(first: FloatArray, second: FloatArray, total: float) -> float | None:
    variances = [_seed_variance(scores, total) for scores in (first, second) if len(scores) > 1]
    return math.sqrt(sum(variances)) if variances else None


def _student(value: float, parts: Sequence[tuple[float, int]], confidence: float) -> tuple[float, float, float]:
    from scipy.stats import t

    variance = sum(part for part, _ in parts)
    if variance == 0:
        return value, value, 1.0 if value == 0 else 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half_width = float(t.ppf((1 + confidence) / 2, freedom)) * error
    return value - half_width, value + half_width, float(2 * t.sf(abs(value) / error, freedom))


def sign_flip_p_value(differences: FloatArray, seed: int, patterns: int = SIGN_PATTERNS) -> float:
    """Share of the sign patterns of paired `differences` whose sum is as far from zero as the one found; exact for few pairs.

    Fisher's randomisation test for pairs. With drawn patterns the one found counts as one of them, so that the test keeps its
    level (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).
    """
    differences = np.sort(differences[differences != 0])  # sorted: the order of the items must not decide which signs are drawn
    pairs = len(differences)
    found = abs(differences.sum()) - ROUNDING * np.abs(differences).sum()
    if pairs <= EXACT_PAIRS:
        bits = np.arange(1 << pairs)[:, None] >> np.arange(pairs) & 1
        return float((np.abs((2.0 * bits - 1) @ differences) >= found).mean())
    generator = np.random.default_rng(seed)
    as_far, rows = 0, max(1, SIGNS_AT_ONCE // pairs)
    for start in range(0, patterns, rows):
        kept = generator.integers(0, 2, (min(rows, patterns - start), pairs), dtype=np.int8).astype(np.float64)
        as_far += int((np.abs(2 * (kept @ differences) - differences.sum()) >= found).sum())
    return (as_far + 1) / (patterns + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, so that the chance of one false claim among them all keeps the level (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def verdict(difference: dict[str, Any], confidence: float) -> str:
    """What may be said of a difference whose `adjusted_p_value` is known."""
    if difference["low"] is None:
        return "unknown"
    if difference["adjusted_p_value"] <= 1 - confidence + 1e-12:
        return "clear"
    excludes_zero = difference["low"] > 0 or difference["high"] < 0
    return "unclear" if excludes_zero else "noise"
