"""What schedulers answer: job ids, states of jobs, and nothing at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.scheduler import SchedulerError, states, submit
from jobs.states import is_unfinished


def test_jobs_that_slurm_has_forgotten_are_asked_of_its_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "squeue": "21|RUNNING|None\n21|PENDING|Resources\n22|PENDING|Dependency",
        "sacct": "23|COMPLETED\n24_1|FAILED\n24_2|CANCELLED by 0",
    }
    for name, answer in answers.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncat <<'END'\n{answer}\nEND\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = states("slurm", ["21", "22", "23", "24", "25"])
    assert found == {
        "21": "1 pending, 1 running",
        "22": "pending (Dependency)",
        "23": "completed",
        "24": "1 cancelled, 1 failed",
        "25": "left the queue",
    }
    (tmp_path / "sacct").write_text("#!/bin/bash\necho 'sacct: error: no accounting' >&2\nexit 1\n")
    assert states("slurm", ["21", "23"]) == {"21": "1 pending, 1 running", "23": "left the queue"}


@pytest.mark.parametrize("state", ["running", "pending (Dependency)", "1 completed, 1 running", "completing", "held", "S"])
def test_states_of_jobs_that_may_still_write(state: str) -> None:
    assert is_unfinished(state)


@pytest.mark.parametrize("state", ["completed", "failed (75)", "left the queue", "not run", "stopped early, to be continued", "1 failed"])
def test_states_of_jobs_that_write_no_more(state: str) -> None:
    assert not is_unfinished(state)


def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="sbatch is not on the PATH"):
        submit(["sbatch", "x"])


def test_an_answer_that_is_no_job_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho $ANSWER\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for answer, job_id in (("12", "12"), ("12;nibi", "12"), ("welcome", None), ("", None)):
        monkeypatch.setenv("ANSWER", answer)
        if job_id:
            assert submit(["sbatch", "x"]) == job_id
        else:
            with pytest.raises(SchedulerError, match="expected a job id"):
                submit(["sbatch", "x"])
