"""Jobs without a cluster: on this machine, and as PBS's nodes would run them. The body runs for real."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.local import LOCK, is_running, run_jobs
from jobs.records import Submission, SubmittedJob
from nemo_ext.common.errors import OutputExistsError
from tests.support import pbs
from tests.support.small_text import TEXTS, small_tokenizer, write_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
PATH = "/usr/bin:/bin"
STUDY = ["submit", "demo", "data.path=a dataset", "output_dir=runs/x", "--stages=prepare", "--name=data",
         "--prepare='the documents.jsonl' --tokenizer tokenizer --split 80,10,10", "--shards=2"]  # fmt: skip
SECRET = "not-a-token-but-treated-as-one"


def sibol(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": str(REPOSITORY), **variables}
    command = [sys.executable, "-m", "recipes.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def write_inputs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    small_tokenizer(folder / "tokenizer")
    write_jsonl(folder / "the documents.jsonl", TEXTS)
    return folder


def one_job(folder: Path, script: str, run_dir: Path | None = None) -> Submission:
    """A submission of one job of this machine whose script is `script`."""
    folder.mkdir()
    (folder / "job.sh").write_text(script)
    job = SubmittedJob("job", (), str(folder / "job.sh"), str(folder / "job.out"), str(run_dir) if run_dir else None)
    return Submission(folder, "local", "none", "", str(folder), (job,))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As a process that works there holds it."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def test_stages_run_here_one_after_the_other_and_are_listed(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "it's my $HOME, here")
    (folder / "secrets.env").write_text(f"HF_TOKEN={SECRET}\n")
    (folder / "secrets.env").chmod(0o600)
    result = sibol(folder, *STUDY, "--site=local", "--secrets=secrets.env")
    assert result.returncode == 0, result.stderr + result.stdout
    assert json.loads((folder / "a dataset" / "manifest.json").read_text())["splits"]["train"]["documents"] > 0
    rows = json.loads(sibol(folder, "jobs", "--json").stdout)
    assert [(row["name"], row["state"]) for row in rows] == [("data-prepare", "completed"), ("data-merge", "completed")]
    log = Path(rows[0]["log"]).read_text()
    assert "Shard 2/2 is done" in log and log in result.stdout
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != "secrets.env"]
    assert "secrets: HF_TOKEN" in log and not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_a_failed_stage_ends_the_row_with_its_exit_code(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "work")
    (folder / "the documents.jsonl").unlink()
    result = sibol(folder, *STUDY, "--site=local")
    assert result.returncode == 1 and "the documents.jsonl" in result.stdout
    states = [row["state"] for row in json.loads(sibol(folder, "jobs", "--json").stdout)]
    assert states == ["failed (1)", "not run"]


def test_pbs_runs_the_scripts_of_an_array_and_its_merge(tmp_path: Path) -> None:
    folder, fake = write_inputs(tmp_path / "it's my $HOME, there"), pbs.FakePbs(tmp_path / "pbs")
    jobs_dir = tmp_path / "jobs"  # PBS cannot take the folder's name in a directive
    refused = sibol(folder, *STUDY, "--site=pbs-enroot", "--runtime=none")
    assert not (folder / "runs").exists()
    assert refused.returncode == 2 and "holds characters that PBS cannot take there. Choose another --jobs-dir" in refused.stderr
    submitted = sibol(folder, *STUDY, "--site=pbs-enroot", "--runtime=none", f"--jobs-dir={jobs_dir}",
                      PATH=f"{fake.bin}:{PATH}", PBS_RECORD=str(fake.record))  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    (prepare, merge) = (Path(argv[-1]) for argv in fake.submitted())
    for index in (1, 2):
        result = pbs.run_as_job(prepare, folder, tmp_path / "home", 1, index)
        assert result.returncode == 0 and f"Shard {index}/2 is done" in result.stdout, result.stderr
    result = pbs.run_as_job(merge, folder, tmp_path / "home", 2)
    assert result.returncode == 0, result.stderr
    assert (folder / "a dataset" / "manifest.json").is_file()
    lost = pbs.run_as_job(prepare, folder, tmp_path / "home", 3, 3)
    assert lost.returncode != 0 and "divided into 2 shares" in lost.stderr


def test_a_run_folder_is_worked_on_once_at_a_time(tmp_path: Path) -> None:
    submission = one_job(tmp_path / "jobs", "echo ran >>ran", tmp_path / "run")
    with held(tmp_path / f".run{LOCK}"), pytest.raises(OutputExistsError, match="works on run folder"):
        run_jobs(submission, print)
    assert not (tmp_path / "jobs" / "ran").exists()
    assert run_jobs(submission, print) == 0 and (tmp_path / "jobs" / "ran").read_text() == "ran\n"
    assert not is_running(submission)
    with held(submission.folder / LOCK):
        assert is_running(submission)


def test_ending_the_command_lets_the_job_save_and_keeps_its_exit_code(tmp_path: Path) -> None:
    one_job(tmp_path / "jobs", "trap 'echo saved; exit 75' TERM\necho began\nfor i in {1..600}; do sleep 0.1; done\n").save()
    program = f"""
import sys
from pathlib import Path
from jobs.local import run_jobs
from jobs.records import read_submission
sys.exit(run_jobs(read_submission(Path({str(tmp_path / "jobs")!r})), print))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    log, deadline = tmp_path / "jobs" / "job.out", time.monotonic() + 60
    while not (log.exists() and "began" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert log.read_text() == "began\nsaved\n"
    assert json.loads((tmp_path / "jobs" / "submission.json").read_text())["jobs"][0]["exit_code"] == 75
