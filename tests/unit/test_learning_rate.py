"""The schedules, as numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.config import RunConfig
from nemo_ext.config.learning_rate import decay_range, learning_rate

KINDS = ("constant", "linear", "cosine", "wsd")


def run(kind: str, steps: int = 100, warmup: int = 10, decay: int | None = None, low: float = 0.1) -> RunConfig:
    config = RunConfig()
    config.optimizer.learning_rate, config.train.max_steps = 1.0, steps
    config.schedule.kind, config.schedule.warmup_steps, config.schedule.decay_steps = kind, warmup, decay
    config.schedule.min_learning_rate = low
    return config


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_rises_linearly_to_the_peak(kind: str) -> None:
    assert [learning_rate(run(kind), step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])


def test_cosine_is_half_way_at_half_time_and_ends_at_the_minimum() -> None:
    assert learning_rate(run("cosine"), 55) == pytest.approx(0.55)
    assert learning_rate(run("cosine"), 100) == learning_rate(run("cosine"), 1000) == pytest.approx(0.1)


def test_wsd_holds_the_peak_and_decays_over_its_last_steps() -> None:
    config = run("wsd", decay=40)
    assert [learning_rate(config, step) for step in (10, 59, 60, 80, 100)] == pytest.approx([1.0, 1.0, 1.0, 0.55, 0.1])
    assert decay_range(run("wsd")) == (80, 100)


def test_constant_stays_at_the_peak() -> None:
    assert learning_rate(run("constant"), 99) == 1.0


@given(kind=st.sampled_from(KINDS), warmup=st.integers(0, 50), steps=st.integers(51, 500), data=st.data())
def test_after_the_warm_up_the_rate_never_rises_and_stays_in_bounds(kind: str, warmup: int, steps: int, data: st.DataObject) -> None:
    config = run(kind, steps, warmup, data.draw(st.none() | st.integers(1, steps - warmup)))
    rates = [learning_rate(config, step) for step in range(warmup, steps + 1)]
    assert all(earlier >= later for earlier, later in itertools.pairwise(rates))
    assert all(0.1 - 1e-12 <= rate <= 1.0 for rate in rates)
    assert all(0 < learning_rate(config, step) <= 1.0 for step in range(warmup))
