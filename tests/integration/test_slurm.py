"""Jobs under a real Slurm on this machine: a whole study submitted by one command, its parts compared with the same done without Slurm.

Without Slurm installed these tests fail and say what to do; SIBOL_TEST_SLURM=off leaves them out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_tools.prepare import PrepareOptions, prepare
from jobs.render import Container, Place, render
from jobs.site import load_site, site_names
from jobs.studies import HERE, study_jobs
from nemo_ext.common.files import read_json
from nemo_ext.config import to_yaml
from tests.support.slurm import OPT_OUT, UNFINISHED, Slurm
from tests.support.small_text import TEXTS, small_tokenizer, write_jsonl
from tests.support.training import exact, read_metrics, small_run, train_on_ranks

pytestmark = pytest.mark.skipif(os.environ.get(OPT_OUT) == "off", reason=f"{OPT_OUT}=off")

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 12
SHARDS = 4
WALLTIME_S = 1800
SECRET = "hf_not_a_token_but_treated_as_one"
SETTINGS = [f"train.max_steps={STEPS}", "train.threads=1", "train.seq_length=32"]
SITE = "based_on: slurm-pyxis\nruntime: none\nnode: {count: 4}\ncpu_jobs: {cores: 1, memory_gib: 1}\n"
# The first start of a job may use one second of its time; what is requeued may use all of it.
FIRST_START = (
    f"if [[ ${{SLURM_RESTART_COUNT:-0}} == 0 ]]; then export SIBOL_JOB_MARGIN_S={WALLTIME_S - 1}; else unset SIBOL_JOB_MARGIN_S; fi\n"
)


class Study:
    """What was submitted, and the command lines that were seen while it was waited for."""

    def __init__(self, slurm: Slurm, folder: Path, answer: str) -> None:
        self.folder, self.answer = folder, answer
        (self.submission,) = (folder / "runs" / "jobs").iterdir()
        self.run = folder / "runs/it's mine"
        self.command_lines: set[str] = set()
        self._slurm = slurm
        self._ids = {job["name"].removeprefix("study-"): job["id"] for job in read_json(self.submission / "submission.json")["jobs"]}

    def wait(self, stage: str) -> list[dict[str, str]]:
        """The records of a job that has completed; of each element of an array."""
        while self._unfinished(stage):
            self._slurm.hurry(self._ids[stage])
        records = self._slurm.job(self._ids[stage])
        assert {record["JobState"] for record in records} == {"COMPLETED"}, self.logs()
        return records

    def wait_for_requeue(self, stage: str) -> None:
        """Until the job has ended for the first time, to be continued."""
        while self._slurm.job(self._ids[stage])[0]["Restarts"] == "0":
            assert self._unfinished(stage), self.logs()

    def _unfinished(self, stage: str) -> bool:
        """Note all command lines of this machine, and say half a second later whether a job is still queued or running."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.command_lines.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has ended
                continue
        time.sleep(0.5)
        return any(record["JobState"] in UNFINISHED for record in self._slurm.job(self._ids[stage]))

    def logs(self) -> str:
        """All that the study's jobs printed."""
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.submission.glob("*.out")))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Four fake nodes with 8 H100 and 8 A100 each."""
    slurm = Slurm(tmp_path_factory.mktemp("slurm") / "cluster", nodes=4, gpu_models=("h100", "a100"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture(scope="module")
def study(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """`sibol submit` of all stages, in a folder whose name needs quotes everywhere, and the end of the last job."""
    folder = tmp_path_factory.mktemp("study") / 'a "study", it\'s $HOME'.replace('"', "")
    folder.mkdir()
    small_tokenizer(folder / "tokenizer")
    write_jsonl(folder / "the documents.jsonl", TEXTS)
    config = small_run(Path("runs/it's mine"), Path("data, prepared"), *SETTINGS)
    (folder / "my run.yaml").write_text(to_yaml(dataclasses.replace(config, name="study")))
    (folder / "mine.yaml").write_text(SITE)
    (folder / "secrets.env").write_text(f"HF_TOKEN={SECRET}\n")
    (folder / "secrets.env").chmod(0o600)
    (slurm.folder / "first_start.sh").write_text(FIRST_START)
    answer = sibol(slurm, folder, "submit", "my run.yaml", "--site=mine.yaml", "--stages=prepare,train,export,evaluate",
                   "--prepare='the documents.jsonl' --tokenizer tokenizer --split 80,10,10", f"--shards={SHARDS}", "--nodes=2",
                   "--gpus-per-node=0", "--ranks-per-node=1", "--chain=3", "--time=0:30:00", "--evaluate=--split validation --resamples 50",
                   "--account=def-mine", "--secrets=secrets.env")  # fmt: skip
    return Study(slurm, folder, answer)


def sibol(slurm: Slurm, folder: Path, *arguments: str) -> str:
    """Standard output of `sibol ARGUMENTS` in `folder`, as on a login node of the cluster."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        **slurm.environment,
        "PATH": path,
        "PYTHONPATH": str(REPOSITORY),
        "BASH_ENV": str(slurm.folder / "first_start.sh"),
    }
    environment.pop("SIBOL_JOB_MARGIN_S", None)
    command = [sys.executable, "-m", "recipes.cli.main", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def test_an_array_of_four_shards_merges_into_the_bytes_of_one_run(study: Study, tmp_path: Path) -> None:
    assert len(study.wait("prepare")) == SHARDS
    study.wait("merge")
    source, tokenizer = study.folder / "the documents.jsonl", study.folder / "tokenizer"
    prepare(PrepareOptions(inputs=(str(source),), tokenizer=tokenizer, out=tmp_path / "whole", split="80,10,10", workers=1))
    merged = study.folder / "data, prepared"
    names = sorted(path.name for path in (tmp_path / "whole").iterdir() if path.suffix in (".bin", ".idx"))
    assert len(names) >= 6
    assert all((merged / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_two_nodes_stop_before_their_deadline_and_are_requeued(study: Study) -> None:
    study.wait("merge")
    study.wait_for_requeue("train")
    assert "stopped after step 1 (deadline), with a checkpoint" in study.logs()
    assert "continues, hop 1 of 2" in study.logs()


def test_the_requeued_job_finishes_bit_identical_to_one_that_was_not_stopped(study: Study, tmp_path: Path) -> None:
    (record,) = study.wait("train")
    assert record["Restarts"] == "1" and record["NumNodes"] == "2"
    lines = read_metrics(study.run)
    assert [line["step"] for line in lines if line.get("event") == "resume"] == [1]
    expected = train_on_ranks(2, small_run(tmp_path / "whole", study.folder / "data, prepared", *SETTINGS))
    assert exact(lines) == exact(expected)
    assert (study.run / "DONE").is_file() and not (study.run / "REQUEUE").exists()


def test_every_stage_of_a_study_completes_after_the_one_before_it(study: Study) -> None:
    study.wait("export")
    records = [study.wait(stage) for stage in ("prepare", "merge", "train", "export", "evaluate")]
    ends = [max(record["EndTime"] for record in stage) for stage in records]
    begins = [min(record["StartTime"] for record in stage) for stage in records]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
    assert read_json(study.run / "results/results.json")["metrics"]["bits_per_byte"]["value"] > 0


def test_no_secret_is_in_scripts_logs_records_slurm_or_any_command_line(study: Study, slurm: Slurm) -> None:
    study.wait("evaluate")
    assert "secrets: HF_TOKEN" in study.logs()  # it was read
    assert len(study.command_lines) > 20
    assert not [line for line in study.command_lines if SECRET in line]
    others = [path for root in (study.folder, slurm.folder) for path in root.rglob("*") if path.is_file() and path.name != "secrets.env"]
    assert len(others) > 40
    assert not [path for path in others if SECRET.encode() in path.read_bytes()]
    assert SECRET not in study.answer


def test_what_was_submitted_is_listed_with_its_state(study: Study, slurm: Slurm) -> None:
    study.wait("evaluate")
    rows = {row["name"]: row for row in json.loads(sibol(slurm, study.folder, "jobs", "--json"))}
    assert rows["study-train"]["state"] == "completed" and rows["study-prepare"]["state"] == f"{SHARDS} completed"
    assert Path(rows["study-train"]["log"]).is_file()
    assert f"study-train: job {rows['study-train']['id']} after study-merge" in study.answer
    assert "study-train" in sibol(slurm, study.folder, "jobs")


def test_a_job_after_a_failed_one_is_not_run(slurm: Slurm, tmp_path: Path) -> None:
    small_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "run.yaml").write_text(to_yaml(small_run(tmp_path / "run", tmp_path / "data", *SETTINGS)))
    (tmp_path / "mine.yaml").write_text(SITE)
    sibol(slurm, tmp_path, "submit", "run.yaml", "--site=mine.yaml", "--stages=prepare,train",
          "--prepare=absent.jsonl --tokenizer tokenizer", "--gpus-per-node=0", "--name=doomed")  # fmt: skip
    (submission,) = (tmp_path / "runs" / "jobs").iterdir()
    first, second = (job["id"] for job in read_json(submission / "submission.json")["jobs"])
    assert slurm.wait(first, 120)[0]["JobState"] == "FAILED"
    assert slurm.wait(second, 60)[0]["JobState"] == "CANCELLED"
    assert "absent.jsonl" in next(submission.glob(f"*-{first}.out")).read_text()
    states = {row["name"]: row["state"] for row in json.loads(sibol(slurm, tmp_path, "jobs", "--json"))}
    assert states == {"doomed-prepare": "failed", "doomed-train": "cancelled"}


@pytest.mark.parametrize("name", ["ready-made", *(name for name in site_names() if load_site(name).scheduler == "slurm")])
def test_slurm_accepts_every_rendered_script(name: str, slurm: Slurm, tmp_path: Path) -> None:
    paths = sorted(HERE.glob("*.sbatch"))
    if name != "ready-made":
        site = load_site(name)
        jobs = [dataclasses.replace(job, gpus_per_node=min(job.gpus_per_node, site.node.gpus)) for job in study_jobs()]
        texts = [render(job, site, Place(f"{job.name}.sbatch", "logs"), Container(site.runtime)) for job in jobs]
        paths = [tmp_path / f"{number}.sbatch" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
    assert len(paths) == len(study_jobs())
    for path in paths:
        slurm.run("sbatch", "--test-only", "--account=def-mine", str(path))


def test_slurm_refuses_what_our_checks_are_there_for(slurm: Slurm, tmp_path: Path) -> None:
    text = (HERE / "run_cpt_patok.sbatch").read_text()
    for old, new in [("h100:8", "h100:9"), ("--nodes=1", "--nodes=5"), ("--time=24:00:00", "--time=200:00:00"), ("h100:8", "b300:8")]:
        assert old in text
        path = tmp_path / "wrong.sbatch"
        path.write_text(text.replace(old, new))
        environment = {**os.environ, **slurm.environment}
        result = subprocess.run(
            ["sbatch", "--test-only", str(path)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode != 0 and re.search("allocation failure|Invalid|not available", result.stderr), (new, result.stderr)
