"""Paired differences: against scipy and exact enumeration, and how often their intervals hold the truth."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.compare_statistics import compare_pairs, holm, sign_flip_p_value
from evaluation.statistics import FloatArray

SMALL = st.lists(st.integers(-8, 8).map(lambda number: number / 4), min_size=2, max_size=9)


def one_seed(values: Any) -> FloatArray:
    return np.array([values], dtype=np.float64)


@given(values=SMALL)
def test_the_p_value_of_few_pairs_is_that_of_all_sign_patterns(values: list[float]) -> None:
    sums = [abs(sum(sign * value for sign, value in zip(signs, values, strict=True))) for signs in product((-1, 1), repeat=len(values))]
    expected = sum(one >= abs(sum(values)) - 1e-9 for one in sums) / len(sums)
    assert sign_flip_p_value(np.array(values), seed=1) == pytest.approx(expected)


@settings(max_examples=15)
@given(values=st.lists(st.floats(-2, 2), min_size=4, max_size=8, unique=True))
def test_the_p_value_is_that_of_scipys_permutation_test(values: list[float]) -> None:
    found = sign_flip_p_value(np.array(values), seed=1)
    expected = stats.permutation_test((values, np.zeros(len(values))), lambda a, b: np.sum(a - b), permutation_type="samples")
    assert found == pytest.approx(expected.pvalue)


def test_drawn_sign_patterns_agree_with_the_normal_approximation() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 300)
    z_value = differences.sum() / np.sqrt((differences**2).sum())
    assert sign_flip_p_value(differences, seed=1) == pytest.approx(2 * stats.norm.sf(z_value), abs=0.015)


def test_the_interval_of_one_seed_is_scipys_paired_percentile_bootstrap() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(80), generator.random(80) + 0.1
    found = compare_pairs(one_seed(first), one_seed(second), np.ones(80), 6000, 0.95, 1)
    expected = stats.bootstrap((second - first,), np.mean, n_resamples=6000, method="percentile", random_state=2).confidence_interval
    assert found.value == pytest.approx((second - first).mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)


@given(values=SMALL)
def test_the_difference_changes_its_sign_with_the_order_of_the_models(values: list[float]) -> None:
    first, second, weights = one_seed(values), one_seed(np.zeros(len(values))), np.ones(len(values))
    one, other = (compare_pairs(*pair, weights, 50, 0.9, 1) for pair in ((first, second), (second, first)))
    assert (one.value, one.p_value, one.item_error) == pytest.approx((-other.value, other.p_value, other.item_error))
    assert one.low is not None and one.high is not None and one.low <= one.value <= one.high


def test_two_seeds_that_say_the_same_leave_the_interval_of_a_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(50), generator.random(50)
    found = compare_pairs(np.stack([first, first]), np.stack([second, second]), np.ones(50), 10, 0.95, 1)
    expected = stats.ttest_rel(second, first)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.seed_error == 0.0


def test_seeds_whose_items_agree_leave_the_interval_of_welchs_test_over_seeds() -> None:
    first, second = np.array([0.1, 0.4, 0.2]), np.array([0.5, 0.9, 0.8, 0.7])
    found = compare_pairs(np.repeat(first[:, None], 6, 1), np.repeat(second[:, None], 6, 1), np.ones(6), 10, 0.95, 1)
    expected = stats.ttest_ind(second, first, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def simulate(seeds: int, repeats: int) -> float:
    """How often a 95 % interval holds the true difference of 0.3, with seed effects of spread 0.2 where there are several."""
    generator = np.random.default_rng(7)
    held = 0
    for number in range(repeats):
        hardness = generator.normal(0, 1, 40)
        sides = [hardness + generator.normal(0, 0.7, (seeds, 40)) + shift for shift in (0.0, 0.3)]
        if seeds > 1:
            sides = [side + generator.normal(0, 0.2, (seeds, 1)) for side in sides]
        found = compare_pairs(*sides, np.ones(40), 400, 0.95, number)
        assert found.low is not None and found.high is not None
        held += found.low <= 0.3 <= found.high
    return held / repeats


@pytest.mark.parametrize(("seeds", "least", "most"), [(1, 0.90, 0.98), (3, 0.93, 0.99)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, least: float, most: float) -> None:
    # Of 400 trials at 95 % the share lies within 0.033 of it in 99.7 % of cases. Percentiles of 40 items are a little narrow, the
    # interval of several seeds is a little wide by construction.
    assert least <= simulate(seeds, 400) <= most


def test_without_the_seeds_the_interval_would_be_too_narrow() -> None:
    generator = np.random.default_rng(3)
    scores = [generator.normal(0, 0.1, (3, 200)) + generator.normal(0, 0.3, (3, 1)) for _ in range(2)]
    several = compare_pairs(*scores, np.ones(200), 400, 0.95, 1)
    single = compare_pairs(scores[0][:1], scores[1][:1], np.ones(200), 400, 0.95, 1)
    assert several.high is not None and several.low is not None and single.high is not None and single.low is not None
    assert several.high - several.low > 5 * (single.high - single.low)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_adjusted_p_values_keep_their_order_and_are_never_smaller(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert adjusted[order[0]] == min(1.0, p_values[order[0]] * len(p_values))


def test_holm_as_written_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_one_item_leaves_everything_but_the_value_unknown() -> None:
    found = compare_pairs(one_seed([0.0]), one_seed([1.0]), np.ones(1), 10, 0.95, 1)
    assert (found.value, found.low, found.p_value) == (1.0, None, None)
