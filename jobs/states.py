"""Where the jobs of a submission stand: asked of its scheduler, or of the locks and exit codes of this machine."""

from __future__ import annotations

from collections.abc import Sequence

from jobs import scheduler
from jobs.local import is_running
from jobs.records import Submission

NOT_SUBMITTED = "not submitted"


def job_states(submissions: Sequence[Submission]) -> dict[tuple[str, str], str]:
    """State by (submission folder, job name). Asks each scheduler once. Raises SchedulerError when one does not answer."""
    found: dict[tuple[str, str], str] = {}
    for kind in ("slurm", "pbs"):
        mine = [submission for submission in submissions if submission.scheduler == kind]
        ids = [job.id for submission in mine for job in submission.jobs if job.id]
        known = scheduler.states(kind, ids)
        for submission in mine:
            for job in submission.jobs:
                found[str(submission.folder), job.name] = known[job.id] if job.id else NOT_SUBMITTED
    for submission in submissions:
        if submission.scheduler == "none":
            found.update(_states_here(submission))
    return found


def _states_here(submission: Submission) -> dict[tuple[str, str], str]:
    states: dict[tuple[str, str], str] = {}
    running = is_running(submission)
    for job in submission.jobs:
        if job.exit_code is not None:
            state = {0: "completed", 75: "stopped early, to be continued"}.get(job.exit_code, f"failed ({job.exit_code})")
        else:
            state = ("waiting" if "running" in states.values() else "running") if running else "not run"
        states[str(submission.folder), job.name] = state
    return states
