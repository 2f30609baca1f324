"""Confidence intervals by bootstrap over documents, vectorised, seeded and independent of the order of the documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemo_ext.common.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
DRAWS_AT_ONCE = 1 << 22  # drawn document numbers held in memory at one time: 32 MB


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; `low` and `high` are None when fewer than two documents leave it unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of an increasing function of the value."""
        return Interval(function(self.value), *(None if end is None else function(end) for end in (self.low, self.high)))

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def check_bootstrap(resamples: int, confidence: float) -> None:
    """Raise ConfigError for settings that give no interval."""
    if resamples < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"Cannot bootstrap with {resamples} resamples at confidence {confidence}: "
            "expected at least 1 resample and a confidence between 0 and 1. Change --resamples or --confidence."
        )


class Bootstrap:
    """Percentile bootstrap of statistics that are functions of column sums (Efron & Tibshirani 1993, chapter 13).

    `columns` `[documents, columns]` float64 are the per-document counts (bits, tokens, bytes, ...). Whole documents are drawn
    with replacement, and all statistics of one object share the draws, so that a difference of two columns is paired.
    `total` `[columns]` are the sums over the documents as they are.
    """

    def __init__(self, columns: FloatArray, resamples: int, confidence: float, seed: int) -> None:
        check_bootstrap(resamples, confidence)
        self.total = columns.sum(axis=0)
        self._sums = _resampled_sums(columns, resamples, seed) if len(columns) > 1 else None
        self._tails = (50 * (1 - confidence), 50 * (1 + confidence))

    def interval(self, statistic: Callable[[FloatArray], Any]) -> Interval:
        """Value and interval of `statistic`, which maps sums `[..., columns]` to values `[...]`."""
        value = float(statistic(self.total))
        if self._sums is None:
            return Interval(value)
        low, high = np.percentile(statistic(self._sums), self._tails)
        # Rounding alone could leave the value a hair outside when all documents have the same ratio.
        return Interval(value, min(float(low), value), max(float(high), value))


def _resampled_sums(columns: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Column sums `[resamples, columns]` over documents drawn with replacement."""
    # A canonical order of the rows makes the draws mean the same for any order of the documents. The last column decides first:
    # callers put counts there, which do not change with the rounding of a batch as log-likelihoods do.
    columns = columns[np.lexsort(columns.T)]
    documents = len(columns)
    generator = np.random.default_rng(seed)
    sums = np.empty((resamples, columns.shape[1]))
    rows = max(1, DRAWS_AT_ONCE // documents)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, documents, (count, documents))
        drawn += np.arange(count)[:, None] * documents
        times_drawn = np.bincount(drawn.ravel(), minlength=count * documents).reshape(count, documents)
        sums[start : start + count] = times_drawn.astype(np.float64) @ columns
    return sums
