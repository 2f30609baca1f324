"""Rolling windows and batches: pure index arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.windows import plan_batches, rolling_windows
from nemo_ext.common.errors import ConfigError

CONTEXT_AND_STRIDE = st.integers(1, 60).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, context)))


@given(tokens=st.integers(0, 400), shape=CONTEXT_AND_STRIDE)
def test_every_token_is_scored_exactly_once_and_in_order(tokens: int, shape: tuple[int, int]) -> None:
    scored = [
        token for _, end, count in rolling_windows(tokens, *shape).tolist() for token in range(end - count, end)
    ]  # token t is the next token of position t of the document with its prefix
    assert scored == list(range(tokens))


@given(tokens=st.integers(0, 400), shape=CONTEXT_AND_STRIDE)
def test_windows_fit_the_context_and_leave_at_least_context_minus_stride_tokens_before_a_new_one(
    tokens: int, shape: tuple[int, int]
) -> None:
    context, stride = shape
    for number, (start, end, count) in enumerate(rolling_windows(tokens, context, stride).tolist()):
        assert 0 <= start < end and end - start <= context
        assert 1 <= count <= end - start
        if number:
            assert count <= stride
            assert end - start == context  # no context is given away
            assert end - start - count >= context - stride


def test_windows_are_those_of_the_evaluation_harness() -> None:
    """Token windows from the harness's own test of `get_rolling_token_windows` (34 tokens, 10 per window), as (inputs, predicted)."""
    full = np.array([-100, *range(34)])
    by_context_len = {
        1: [(-100, 8, 0, 9), (9, 18, 10, 19), (19, 28, 20, 29), (23, 32, 30, 33)],
        5: [(-100, 8, 0, 9), (5, 14, 10, 15), (11, 20, 16, 21), (17, 26, 22, 27), (23, 32, 28, 33)],
    }
    for context_len, expected in by_context_len.items():
        windows = rolling_windows(34, 10, 10 - context_len + 1)
        found = [(full[start], full[end - 1], full[end - count + 1], full[end]) for start, end, count in windows.tolist()]
        assert found == expected


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_outside_the_context_is_refused_with_both_numbers(stride: int) -> None:
    with pytest.raises(ConfigError, match=rf"stride.* is {stride} tokens.* context of 8 tokens"):
        rolling_windows(20, 8, stride)


@given(lengths=st.lists(st.integers(1, 50), max_size=60), max_rows=st.integers(1, 10), max_positions=st.integers(1, 200))
def test_batches_hold_every_window_once_within_the_limits(lengths: list[int], max_rows: int, max_positions: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = list(plan_batches(array, max_rows, max_positions))
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * array[batch].max() <= max_positions
