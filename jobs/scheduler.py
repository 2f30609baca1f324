"""Slurm and PBS as commands: submit a script, say how to follow and stop it, ask for states. Environment and secrets stay out of argv."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jobs.job import Job
from nemo_ext.common.errors import ConfigError, SibolError

ASK_TIMEOUT_S = 60  # a scheduler that does not answer for so long is down
# First letters of PBS's states (qstat(1B)) in words.
PBS_STATES = {"Q": "pending", "R": "running", "H": "held", "W": "waiting", "E": "ending", "B": "running", "F": "finished", "X": "finished"}
GONE = "left the queue"


class SchedulerError(SibolError):
    """The scheduler is not there, does not answer or refuses."""


def submit_command(scheduler: str, job: Job, script: Path, account: str | None, after: Sequence[str]) -> list[str]:
    """argv that submits `script` after the jobs with the ids `after` have succeeded; a continuation, after they ended in any way.

    The account is an argument because Slurm lets SBATCH_ACCOUNT of the environment win over a directive.
    """
    condition = ":".join(["afterany" if job.hop else "afterok", *after])
    if scheduler == "slurm":
        return [
            "sbatch",
            "--parsable",
            *([f"--account={account}"] if account else []),
            *([f"--array=1-{job.shards}"] if job.shards and job.shards > 1 else []),
            *([f"--dependency={condition}", "--kill-on-invalid-dep=yes"] if after else []),
            str(script),
        ]
    return [
        "qsub",
        *(["-A", account] if account else []),
        *(["-J", f"1-{job.shards}"] if job.shards and job.shards > 1 else []),  # PBS refuses -J 1-1
        *(["-W", f"depend={condition}"] if after else []),
        str(script),
    ]


def ask(command: Sequence[str]) -> str:
    """Standard output of a scheduler's command. Raises SchedulerError with what it said."""
    result = _run(command)
    if result.returncode != 0:
        raise SchedulerError(
            f"`{' '.join(command)}` failed ({result.returncode}): {(result.stderr or result.stdout).strip() or 'no message'}"
        )
    return result.stdout


def submit(command: Sequence[str]) -> str:
    """Submit, and return the job id. Raises SchedulerError when the scheduler refuses or answers with anything but an id."""
    answer = ask(command).strip()
    job_id = answer.splitlines()[-1].partition(";")[0] if answer else ""  # --parsable: ID;CLUSTER
    if not re.fullmatch(r"\d+(\[\])?(\.[\w.-]+)?", job_id):
        raise SchedulerError(
            f"`{command[0]}` answered {answer!r}, expected a job id. Look with `{'squeue --me' if command[0] == 'sbatch' else 'qstat'}`."
        )
    return job_id


def cancel_command(scheduler: str, ids: Sequence[str]) -> str:
    """What a user types to stop jobs."""
    return " ".join(["scancel" if scheduler == "slurm" else "qdel", *(f"'{job_id}'" if "[" in job_id else job_id for job_id in ids)])


def states(scheduler: str, ids: Sequence[str]) -> dict[str, str]:
    """The state of each job in words; arrays as counts. Raises SchedulerError when the scheduler cannot be asked."""
    if not ids:
        return {}
    found = _slurm_states(ids) if scheduler == "slurm" else _pbs_states(ids)
    return {job_id: found.get(job_id, GONE) for job_id in ids}


def _slurm_states(ids: Sequence[str]) -> dict[str, str]:
    # One question for all: squeue forgets a job some minutes after its end, and asked for such an id alone it fails.
    found: dict[str, Counter[str]] = {}
    for line in ask(["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%F|%T|%r"]).splitlines():
        job_id, state, reason = (line.split("|") + ["", ""])[:3]
        waits = state == "PENDING" and reason not in ("None", "", "Resources", "Priority")
        found.setdefault(job_id, Counter())[state.lower() + (f" ({reason})" if waits else "")] += 1
    forgotten = [job_id for job_id in ids if job_id not in found]
    if forgotten:
        for line in _accounting(forgotten):
            job_id, _, state = line.partition("|")
            found.setdefault(job_id.partition("_")[0], Counter())[state.partition(" ")[0].lower()] += 1
    return {job_id: _in_words(counts) for job_id, counts in found.items()}


def _accounting(ids: Sequence[str]) -> list[str]:
    """`ID|STATE` lines of sacct, or nothing where the site keeps no accounts."""
    try:
        result = _run(["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(ids)}"])
    except SchedulerError:
        return []
    return result.stdout.splitlines() if result.returncode == 0 else []


def _pbs_states(ids: Sequence[str]) -> dict[str, str]:
    # It fails for jobs it has forgotten, and still tells about the others.
    answer = _run(["qstat", "-x", "-f", "-F", "json", *ids]).stdout
    try:
        jobs = json.loads(answer).get("Jobs", {}) if answer.strip() else {}
    except json.JSONDecodeError:
        raise SchedulerError(f"qstat answered something else than JSON: {answer[:200]!r}. PBS of 2020 or later is expected.") from None
    found = {}
    for job_id, facts in jobs.items():
        state = PBS_STATES.get(facts["job_state"], facts["job_state"])
        if state == "finished" and "Exit_status" in facts:
            state = "completed" if facts["Exit_status"] == 0 else f"failed ({facts['Exit_status']})"
        found[job_id] = state
    return found


def _in_words(counts: Counter[str]) -> str:
    if sum(counts.values()) == 1:
        return next(iter(counts))
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise SchedulerError(f"{command[0]} is not on the PATH. Submit on a login node of the site, or look with --dry-run.") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(
            f"{command[0]} did not answer within {ASK_TIMEOUT_S} s. Try again later. If it was to take a job, first look with "
            f"`{'qstat' if command[0].startswith('q') else 'squeue --me'}` whether it took it: the answer alone may be lost."
        ) from None
    except PermissionError as error:
        raise ConfigError(f"{command[0]} cannot be run: {error}.") from None
