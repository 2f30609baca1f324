"""Jobs on this machine, one after the other, as a scheduler would run them: the same scripts, a log each, nobody twice at once."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from jobs.records import Submission, SubmittedJob
from nemo_ext.common.errors import OutputExistsError
from nemo_ext.common.processes import end_with_parent

LOCK = ".running"


def run_jobs(submission: Submission, say: Callable[[str], None]) -> int:
    """Run the jobs of a submission in order until one fails; returns the exit code of the last one that ran.

    Raises OutputExistsError when another process of this machine works on the same run folder.
    """
    code = 0
    with _locked(submission.folder / LOCK, "this submission", wait=True):  # only `is_running` may hold it, for a moment
        for job in submission.jobs:
            say(f"{job.name}: runs here, log {job.log}")
            code = _run_job(job, submission.directory)
            submission = submission.with_job(replace(job, exit_code=code))
            submission.save()
            if code != 0:
                break
    return code


def is_running(submission: Submission) -> bool:
    """Whether a process of this machine runs the submission."""
    try:
        with _locked(submission.folder / LOCK, "this submission"):
            return False
    except OutputExistsError:
        return True


def _run_job(job: SubmittedJob, directory: str) -> int:
    if job.run_dir is None:
        return _run_script(job, directory)
    run_dir = Path(job.run_dir)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with _locked(run_dir.with_name(f".{run_dir.name}{LOCK}"), f"run folder {run_dir}"):
        return _run_script(job, directory)


def _run_script(job: SubmittedJob, directory: str) -> int:
    """Run the script, show what it prints and keep it in the log; returns its exit code (128 + n after signal n)."""
    with open(job.log, "ab", buffering=0) as log:
        process = subprocess.Popen(
            ["bash", job.script],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches the job once, through us
            preexec_fn=end_with_parent,
        )
        assert process.stdout is not None
        with _forwarding(process):
            for piece in iter(lambda: os.read(process.stdout.fileno(), 1 << 16), b""):  # type: ignore[union-attr]
                log.write(piece)
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to the job, which saves and ends; we wait for that."""

    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _locked(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise OutputExistsError(
            f"Another process of this machine works on {what}. Wait for it or stop it; `sibol jobs` lists jobs."
        ) from None
    finally:
        os.close(descriptor)
