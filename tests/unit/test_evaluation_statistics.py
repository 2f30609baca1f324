"""Bootstrap intervals: what they contain, what they do not depend on, and that they are of the right width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.statistics import Bootstrap, FloatArray, Interval
from nemo_ext.common.errors import ConfigError

ROWS = st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 5000)), min_size=1, max_size=40)
ROWS_OF_SEVERAL = ROWS.filter(lambda rows: len(rows) > 1)


def ratio(sums: FloatArray) -> Any:
    return sums[..., 0] / sums[..., 1]


def interval(rows: Any, seed: int = 1, resamples: int = 200, confidence: float = 0.95) -> Interval:
    return Bootstrap(np.array(rows, dtype=np.float64), resamples, confidence, seed).interval(ratio)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS, seed=st.integers(0, 1000))
def test_the_interval_contains_the_ratio_of_the_sums(rows: list[tuple[float, int]], seed: int) -> None:
    found = interval(rows, seed)
    assert found.value == pytest.approx(sum(bits for bits, _ in rows) / sum(size for _, size in rows))
    if len(rows) == 1:
        assert found.low is None and found.high is None
    else:
        assert found.low is not None and found.high is not None
        assert found.low <= found.value <= found.high


@settings(deadline=None, max_examples=25)
@given(rows=ROWS_OF_SEVERAL, order=st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_change_the_interval(rows: list[tuple[float, int]], order: Any) -> None:
    shuffled = list(rows)
    order.shuffle(shuffled)
    # The last digit of a sum may differ.
    assert list(interval(shuffled).as_dict().values()) == pytest.approx(list(interval(rows).as_dict().values()), rel=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    rows = np.random.default_rng(0).uniform(1, 100, (30, 2))
    assert interval(rows, seed=1) == interval(rows, seed=1)
    assert interval(rows, seed=1) != interval(rows, seed=2)


def test_drawing_in_pieces_gives_the_interval_of_drawing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).uniform(1, 100, (30, 2))
    whole = interval(rows)
    monkeypatch.setattr("evaluation.statistics.DRAWS_AT_ONCE", 97)
    assert interval(rows).as_dict() == pytest.approx(whole.as_dict(), rel=1e-12)


def test_the_interval_of_a_mean_has_the_width_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = interval(np.stack([values, np.ones(400)], axis=1), resamples=4000)
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.06)


def test_a_paired_difference_of_equal_columns_is_exactly_zero_although_each_column_is_uncertain() -> None:
    bits = np.random.default_rng(0).uniform(1, 100, 30)
    bootstrap = Bootstrap(np.stack([bits, bits, np.full(30, 50.0)], axis=1), 100, 0.95, 1)
    assert bootstrap.interval(lambda sums: (sums[..., 0] - sums[..., 1]) / sums[..., 2]) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("resamples", "confidence"), [(0, 0.95), (10, 0.0), (10, 1.0), (10, 95.0)])
def test_impossible_settings_are_refused_with_their_values(resamples: int, confidence: float) -> None:
    with pytest.raises(ConfigError, match=f"{resamples} resamples at confidence {confidence}"):
        interval([(1.0, 2), (2.0, 3)], resamples=resamples, confidence=confidence)
