"""One process at a time trains in a run folder, and one that was killed is in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_ext.common.errors import OutputExistsError
from nemo_ext.common.locks import locked_file
from nemo_ext.engine.run_folder import RunFolder, training_here

REPOSITORY = Path(__file__).resolve().parents[2]
# Holds the run folder, as a rank does that loads data in a process of its own, until its input ends.
HOLDER = """
import os, sys
from nemo_ext.engine.run_folder import RunFolder, training_here
with training_here(RunFolder(sys.argv[1])):
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("held", os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_trains_and_a_killed_one_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    run = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == f"held {holder.pid}\n"
        refusal = rf"is being trained by process {holder.pid} on .*, job 4711\. .* touch .*STOP"
        with pytest.raises(OutputExistsError, match=refusal), training_here(run):
            pass
        holder.kill()
        holder.wait()
        with training_here(run):  # although what the other one forked is still there
            assert "process" in run.lock.read_text() and str(holder.pid) not in run.lock.read_text()
    with training_here(run):
        pass


def test_without_locks_in_the_file_system_work_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        del arguments
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with training_here(RunFolder(tmp_path / "run")):
        pass
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_missing_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        del arguments
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match="Input/output error"), locked_file(tmp_path / "lock"):
        pass
