"""What was submitted: a folder per submission with the scripts, their logs and `submission.json`, so that jobs are found again.

JOBS_DIR/20261121-150301-NAME/submission.json   site, account, time, and per job: id, script, log, command, run folder
JOBS_DIR/20261121-150301-NAME/JOB.sbatch        what was submitted, byte for byte
JOBS_DIR/20261121-150301-NAME/JOB-ID.out        what the job printed
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.job import Job
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json, write_json

SCHEMA = "sibol.submission/1"
RECORD = "submission.json"


@dataclass(frozen=True)
class SubmittedJob:
    """One job as it was handed over. `id` None: it was not (yet). `exit_code`: of a job of this machine that has ended."""

    name: str
    command: tuple[str, ...]
    script: str
    log: str
    run_dir: str | None = None
    shards: int | None = None
    id: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Submission:
    """All jobs of one `sibol submit`, in the order in which they wait for one another."""

    folder: Path
    site: str
    scheduler: str
    submitted_at: str
    directory: str
    jobs: tuple[SubmittedJob, ...]

    def with_job(self, changed: SubmittedJob) -> Submission:
        """The same with one job replaced, by name."""
        return dataclasses.replace(self, jobs=tuple(changed if job.name == changed.name else job for job in self.jobs))

    def save(self) -> None:
        """Write `submission.json`."""
        values = dataclasses.asdict(self)
        del values["folder"]
        write_json(self.folder / RECORD, {"schema": SCHEMA, **values})


def new_folder(jobs_dir: Path, name: str, now: datetime) -> Path:
    """A fresh folder for a submission, made at once so that no two submissions of one second share it."""
    stamp = now.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = jobs_dir / (f"{stamp}-{name}" if number == 1 else f"{stamp}-{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise DataError(f"{jobs_dir} has a thousand submissions of {stamp}. Choose another --jobs-dir.")


def log_file(scheduler: str, folder: Path, job: Job, job_id: str | None) -> str:
    """Where a job's output goes; with `*` for what only its elements know."""
    if scheduler == "none":
        return str(folder / f"{job.name}.out")
    if scheduler == "pbs":
        return str(folder / f"{(job_id or '*').replace('[]', '[*]')}.OU")
    return str(folder / f"{job.name}-{'*' if job.shards or job_id is None else job_id}.out")


def read_submission(folder: Path) -> Submission:
    """Read a record. Raises DataError when it is none."""
    values: dict[str, Any] = read_json(folder / RECORD, "record of a submission")
    if values.pop("schema", None) != SCHEMA:
        raise DataError(f"{folder / RECORD} is no record of schema {SCHEMA}. Use the version that wrote it.")
    jobs = tuple(SubmittedJob(**{**job, "command": tuple(job["command"])}) for job in values.pop("jobs"))
    return Submission(folder=folder, jobs=jobs, **values)


def submissions(jobs_dir: Path) -> list[Submission]:
    """All records below `jobs_dir`, oldest first."""
    return [read_submission(path.parent) for path in sorted(jobs_dir.glob(f"*/{RECORD}"))]
