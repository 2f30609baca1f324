"""Splits depend on the document's number and the shares alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.splits import BITS, assign, parse_split
from nemo_ext.common.errors import ConfigError

NUMBERS = np.random.default_rng(1).integers(0, 1 << 64, size=200_000, dtype=np.uint64, endpoint=False)


def test_shares_come_out_as_asked() -> None:
    counts = np.bincount(assign(NUMBERS, parse_split("98,1,1")), minlength=3)
    assert np.abs(counts / len(NUMBERS) - [0.98, 0.01, 0.01]).max() < 0.002


def test_spelling_of_shares_does_not_matter() -> None:
    assert parse_split("98,1,1") == parse_split(" 0.98, 0.01 ,0.01") == parse_split("49,0.5,1/2")


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=50))
def test_everything_goes_into_train_when_the_others_have_no_share(numbers: list[int]) -> None:
    assert not assign(np.array(numbers, dtype=np.uint64), parse_split("1,0,0")).any()


@given(st.tuples(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1000)))
def test_limits_rise_to_the_whole_range_and_empty_shares_get_no_document(shares: tuple[int, int, int]) -> None:
    limits = parse_split(",".join(map(str, shares)))
    assert 0 < limits[0] <= limits[1] <= limits[2] == 1 << BITS
    used = set(assign(NUMBERS[:5000], limits).tolist())
    assert all(shares[position] for position in used)


def test_a_larger_train_share_only_moves_documents_into_train() -> None:
    smaller, larger = assign(NUMBERS, parse_split("90,5,5")), assign(NUMBERS, parse_split("95,3,2"))
    assert not larger[smaller == 0].any()


@pytest.mark.parametrize("text", ["", "98", "98,2", "98,1,1,0", "98,-1,3", "0,1,1", "a,b,c", "1/0,1,1", "nan,1,1"])
def test_shares_that_make_no_sense_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="98,1,1"):
        parse_split(text)
