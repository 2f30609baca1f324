"""Where the jobs of a submission stand: asked of its scheduler, or of the locks and exit codes of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs import scheduler
from jobs.job import Job
from jobs.local import is_running
from jobs.records import Submission, submissions
from nemo_ext.common.errors import OutputExistsError

NOT_SUBMITTED = "not submitted"
# Words of states in which a job trains or may come to; Slurm's are those of squeue(1), and PBS's letters those of qstat(1B).
UNFINISHED = (
    *("pending", "running", "waiting", "held", "ending", "suspended", "completing", "configuring", "resizing", "requeued"),
    *("requeue_fed", "requeue_hold", "signaling", "special_exit", "stage_out", "stopped", "S", "T", "U"),
)


def job_states(asked: Sequence[Submission]) -> dict[tuple[str, str], str]:
    """State by (submission folder, job name). Asks each scheduler once. Raises SchedulerError when one does not answer."""
    found: dict[tuple[str, str], str] = {}
    for kind in ("slurm", "pbs"):
        mine = [submission for submission in asked if submission.scheduler == kind]
        ids = [job.id for submission in mine for job in submission.jobs if job.id]
        known = scheduler.states(kind, ids)
        for submission in mine:
            for job in submission.jobs:
                found[str(submission.folder), job.name] = known[job.id] if job.id else NOT_SUBMITTED
    for submission in asked:
        if submission.scheduler == "none":
            found.update(_states_here(submission))
    return found


def refuse_unfinished(jobs: Sequence[Job], jobs_dir: Path) -> None:
    """Raise OutputExistsError when a job of an earlier submission works, or will, in a run folder of `jobs`."""
    wanted = {str(Path(job.run_dir).resolve()) for job in jobs if job.run_dir}
    earlier = [submission for submission in submissions(jobs_dir) if any(job.run_dir in wanted for job in submission.jobs)]
    states = job_states(earlier)
    for submission in earlier:
        for job in submission.jobs:
            state = states[str(submission.folder), job.name]
            if job.run_dir in wanted and is_unfinished(state):
                stop = f" with `{scheduler.cancel_command(submission.scheduler, [job.id])}`" if job.id else ""
                raise OutputExistsError(
                    f"Run folder {job.run_dir} is that of {job.name}{f', job {job.id}' if job.id else ''}, which was submitted at "
                    f"{submission.submitted_at} and is {state}. Wait for it, stop it{stop}, or choose another output_dir=DIR."
                )


def is_unfinished(state: str) -> bool:
    """Whether a job in this state, or an element of an array, still works or will."""
    return not state.startswith("stopped early") and any(word in UNFINISHED for word in state.replace(",", " ").split())


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
