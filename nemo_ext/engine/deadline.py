"""When a run has to stop by itself, because its job is about to be ended or somebody asked, and the marks by which it says so.

A signal is no way to learn that time is up: schedulers send it too early, too late, twice or not at all. A job knows its end from
the start (SIBOL_JOB_DEADLINE, in epoch seconds), and a run knows how long its steps and saves take. No torch here.

RUN/STOP      made by anybody: finish this step, save, leave; "requeue" in it means that the job should be continued
RUN/REQUEUE   made by rank 0: stopped before its end, at `step`, having begun at `first_step`; the same command continues
RUN/DONE      made by rank 0: finished
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import write_json
from nemo_ext.engine.run_folder import RunFolder

DEADLINE_VARIABLE = "SIBOL_JOB_DEADLINE"
MARGIN_VARIABLE = "SIBOL_JOB_MARGIN_S"
REQUEUE_WORD = "requeue"  # what jobs/body writes into RUN/STOP when the scheduler says that time runs out
SLACK = 1.5  # how much longer than the slowest so far the next one may take
UNSEEN_SAVE_S = 300.0  # a save that nobody has seen yet takes this long, or a tenth of a short job
WIND_DOWN_S = 60.0  # from the last save to the end of all processes, or a twentieth of a short job


class Deadline:
    """How much time is left, against the slowest step, validation and save that were seen. Without a deadline nothing is ever late."""

    def __init__(self, at_s: float | None, margin_s: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self.at_s = at_s
        self.margin_s = margin_s
        self._clock = clock
        self._slowest_s: dict[str, float] = {}
        allotted_s = max(0.0, at_s - clock()) if at_s is not None else 0.0
        self._unseen_save_s = min(UNSEEN_SAVE_S, allotted_s / 10)
        self._wind_down_s = min(WIND_DOWN_S, allotted_s / 20)

    def took(self, what: str, seconds: float) -> None:
        """Remember how long a "step", "validation" or "save" took."""
        self._slowest_s[what] = max(seconds, self._slowest_s.get(what, 0.0))

    def needed_s(self, validations: int = 0, validation_batches: int = 0, saves: int = 1) -> float:
        """Seconds to keep: one more step, `validations` of so many batches, `saves`, and leaving."""
        if self.margin_s is not None:
            return self.margin_s
        step_s = self._slowest_s.get("step", 0.0)
        # forward only, so a batch of it takes less than a step
        validation_s = self._slowest_s.get("validation", validation_batches * step_s)
        save_s = self._slowest_s.get("save", self._unseen_save_s)
        return SLACK * (step_s + validations * validation_s + saves * save_s) + self._wind_down_s

    def too_late(self, validations: int = 0, validation_batches: int = 0, saves: int = 1) -> bool:
        """Whether another step could end after the deadline, with the validations and saves before and after it."""
        return self.at_s is not None and self._clock() + self.needed_s(validations, validation_batches, saves) > self.at_s


def deadline_of(environment: Mapping[str, str]) -> Deadline:
    """The deadline that the job's body set. Raises ConfigError when it is no number."""
    return Deadline(_seconds(environment, DEADLINE_VARIABLE), _seconds(environment, MARGIN_VARIABLE))


def _seconds(environment: Mapping[str, str], name: str) -> float | None:
    text = environment.get(name, "")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r} is no number of seconds. Unset it, or leave it to `sibol submit`.") from None


def stop_file_word(folder: RunFolder) -> str | None:
    """What RUN/STOP says in its first line, or None when there is no such file. A job adds a line on who wrote it."""
    try:
        return folder.stop.read_text(encoding="utf-8").partition("\n")[0].strip()
    except FileNotFoundError:
        return None


def mark_stopped(folder: RunFolder, step: int, first_step: int, reason: str | None) -> None:
    """Say that the run stopped early, and obey RUN/STOP once only. `reason` None: somebody wanted it to end, so nothing continues it."""
    if reason is not None:
        write_json(folder.requeue, {"step": step, "first_step": first_step, "reason": reason})
    folder.stop.unlink(missing_ok=True)


def mark_done(folder: RunFolder, step: int) -> None:
    """Say that the run is finished."""
    write_json(folder.done, {"step": step})


def clear_marks(folder: RunFolder) -> None:
    """Remove what an earlier start of this run said. RUN/STOP stays: it may have been made for this one."""
    folder.requeue.unlink(missing_ok=True)
    folder.done.unlink(missing_ok=True)
