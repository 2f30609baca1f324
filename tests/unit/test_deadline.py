"""A run stops by itself while there is still time to save, and says so in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import read_json
from nemo_ext.engine import deadline
from nemo_ext.engine.deadline import Deadline, deadline_of
from nemo_ext.engine.run_folder import RunFolder


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_deadline_nothing_is_late() -> None:
    without = deadline_of({})
    without.took("step", 1e9)
    assert not without.too_late(validations=2, validation_batches=100)


def test_a_word_that_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="SIBOL_JOB_DEADLINE='tomorrow'"):
        deadline_of({"SIBOL_JOB_DEADLINE": "tomorrow"})


@given(
    step_s=st.floats(0.01, 100),
    save_s=st.floats(0.01, 500),
    validation_s=st.floats(0.01, 500),
    validates_every=st.integers(1, 7),
    allotted_s=st.floats(3000, 90000),
)
def test_a_run_of_steady_pace_is_saved_before_its_deadline_and_wastes_little(
    step_s: float, save_s: float, validation_s: float, validates_every: int, allotted_s: float
) -> None:
    clock = Clock()
    watch = Deadline(clock.now_s + allotted_s, clock=clock)
    step = 0
    while True:
        step += 1
        clock.now_s += step_s
        watch.took("step", step_s)
        late = watch.too_late(sum(at % validates_every == 0 for at in (step, step + 1)), 8, saves=2 if step % 50 == 0 else 1)
        if step % validates_every == 0:
            clock.now_s += validation_s
            watch.took("validation", validation_s)
        if late or step % 50 == 0:
            clock.now_s += save_s
            watch.took("save", save_s)
        if late or step == 2000:
            break
    assert watch.at_s is not None and clock.now_s <= watch.at_s
    if late and step > 50:
        largest_reserve_s = deadline.SLACK * (step_s + 2 * max(validation_s, 8 * step_s) + 2 * max(save_s, 300)) + deadline.WIND_DOWN_S
        assert watch.at_s - clock.now_s <= largest_reserve_s + save_s + validation_s


def test_a_save_that_was_seen_counts_instead_of_the_guess() -> None:
    clock = Clock()
    watch = Deadline(clock.now_s + 36000, clock=clock)
    assert watch.needed_s() == pytest.approx(1.5 * 300 + 60)
    watch.took("save", 20)
    watch.took("save", 10)
    assert watch.needed_s() == pytest.approx(1.5 * 20 + 60)


def test_a_short_job_keeps_a_part_of_its_time_in_reserve_not_all_of_it() -> None:
    clock = Clock()
    assert Deadline(clock.now_s + 100, clock=clock).needed_s() == pytest.approx(1.5 * 10 + 5)


def test_a_margin_that_is_given_is_the_margin() -> None:
    watch = deadline_of({"SIBOL_JOB_DEADLINE": "1e12", "SIBOL_JOB_MARGIN_S": "900"})
    watch.took("step", 5000)
    assert watch.needed_s(1, 8) == 900


def test_the_marks_of_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert deadline.stop_file_word(folder) is None
    folder.stop.write_text("requeue\n")
    assert deadline.stop_file_word(folder) == deadline.REQUEUE_WORD
    folder.stop.write_text("requeue\nby job 4711\n")  # as a job does
    assert deadline.stop_file_word(folder) == deadline.REQUEUE_WORD
    deadline.mark_stopped(folder, step=12, first_step=4, reason="deadline")
    assert read_json(folder.requeue) == {"step": 12, "first_step": 4, "reason": "deadline"}
    assert not folder.stop.exists(), "a stop-file is obeyed once"
    deadline.clear_marks(folder)
    deadline.mark_stopped(folder, step=12, first_step=4, reason=None)
    assert not folder.requeue.exists(), "who stopped the run by hand does not want it to be continued"
    deadline.mark_done(folder, 20)
    assert read_json(folder.done) == {"step": 20}
