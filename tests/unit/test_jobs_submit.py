"""`sibol submit`: which jobs a study becomes, what a site refuses, what is handed over, and what is found again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from jobs.plan.resources import resources
from jobs.site import load_site, site_names
from jobs.stages import Wishes, study_jobs
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig, apply_overrides
from recipes import load_recipe
from recipes.cli import main as command_line
from tests.support import pbs

PREPARE = {"prepare": "'the text.jsonl' --tokenizer t"}
SECRET = "not-a-token-but-treated-as-one"


def config(*overrides: str, recipe: str = "continue_pretraining") -> RunConfig:
    return apply_overrides(load_recipe(recipe), ["data.path=data/x", "output_dir=runs/x", *overrides])


def sibol(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sibol ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["sibol", *arguments])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def fake_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pbs.FakePbs:
    """qsub and qstat that record, on the PATH; the working folder is an empty one, and no account or site is set."""
    fake = pbs.FakePbs(tmp_path / "pbs")
    for name in ("SIBOL_SITE", "SIBOL_ACCOUNT", "SBATCH_ACCOUNT", "SIBOL_IMAGE", "SIBOL_JOBS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**fake.environment, "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return fake


def test_a_study_is_a_row_of_jobs_that_wait_for_one_another() -> None:
    wishes = Wishes(stages=("prepare", "train", "export", "evaluate"), shards=4, chain=3, arguments=PREPARE, times_s={"prepare": 7200})
    jobs = study_jobs("continue_pretraining", ["data.path=data/x"], config(), load_site("nibi"), wishes)
    names = [job.name.removeprefix("continue_pretraining-") for job in jobs]
    assert names == ["prepare", "merge", "train", "export", "evaluate"]
    assert [job.after for job in jobs] == [(), *((job.name,) for job in jobs[:-1])]
    prepare, merge, train, export, evaluate = jobs
    assert prepare.command == ("sibol", "data", "prepare", "the text.jsonl", "--tokenizer", "t", "--out", "data/x", "--workers", "16")
    assert (prepare.shards, prepare.walltime_s, merge.command) == (4, 7200, ("sibol", "data", "merge", "data/x"))
    assert (train.run_dir, train.max_hops, train.gpus_per_node, train.nodes) == ("runs/x", 2, 1, 1)
    assert export.command == ("sibol", "export", "runs/x", "runs/x/hf")
    assert evaluate.command == ("sibol", "evaluate", "runs/x/hf", "--data", "data/x", "--out", "runs/x/results")


@pytest.mark.parametrize(
    ("arguments", "node_cores", "workers"),
    [
        ("x --tokenizer t", 112, ["--workers", "16"]),
        ("x --tokenizer t", 4, ["--workers", "4"]),
        ("x --tokenizer t --workers 3", 112, ["--workers", "3"]),
        ("x --tokenizer t --workers=3", 112, ["--workers=3"]),
    ],
)
def test_data_are_prepared_by_as_many_workers_as_asked_for_or_as_the_job_has_cores(
    arguments: str, node_cores: int, workers: list[str]
) -> None:
    site = load_site("nibi")
    site.node.cores = node_cores
    (job,) = study_jobs("r", [], config(), site, Wishes(stages=("prepare",), arguments={"prepare": arguments}))
    assert [word for word in job.command if word.startswith("--workers") or word.isdigit()] == workers


def test_a_chain_on_pbs_is_jobs_that_wait_from_the_start_so_that_the_export_waits_for_the_last() -> None:
    wishes = Wishes(stages=("train", "export"), chain=3)
    jobs = study_jobs("r", [], config(), load_site("pbs-enroot"), wishes)
    assert [(job.name.partition("-")[2], job.hop, job.max_hops) for job in jobs] == [
        ("train", 0, None), ("train-2", 1, None), ("train-3", 2, None), ("export", 0, None),
    ]  # fmt: skip
    assert [job.after for job in jobs] == [(), *((job.name,) for job in jobs[:-1])]


@pytest.mark.parametrize(
    ("site", "recipe", "wishes", "layout"),
    [
        ("nibi", "continue_pretraining", Wishes(), (1, 1, 1)),
        ("nibi", "continue_pretraining", Wishes(nodes=2), (2, 8, 8)),
        ("nibi", "survey_14b_pretraining", Wishes(), (1, 8, 8)),
        ("fir", "survey_14b_pretraining", Wishes(), (2, 4, 4)),
        ("nibi", "early_modern_72b", Wishes(), (4, 8, 8)),
        ("nibi", "survey_14b_pretraining", Wishes(nodes=2, gpus_per_node=0), (2, 0, 4)),
        ("local", "demo", Wishes(), (1, 0, 2)),
    ],
)
def test_training_asks_for_the_fewest_nodes_that_hold_the_model_as_the_plan_says(
    site: str, recipe: str, wishes: Wishes, layout: tuple[int, int, int]
) -> None:
    (job,) = study_jobs(recipe, [], config(recipe=recipe), load_site(site), wishes)
    assert (job.nodes, job.gpus_per_node, job.ranks_per_node) == layout
    if wishes.gpus_per_node != 0:
        planned = resources(config(recipe=recipe), load_site(site), wishes.nodes, wishes.gpus_per_node, None, None)
        assert (planned.nodes, planned.ranks_per_node) == (job.nodes, job.ranks_per_node)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(stages=("tran",)), "Unknown stage 'tran'. Did you mean 'train'"),
        (Wishes(stages=()), "--stages is empty"),
        (Wishes(stages=("prepare",)), "Stage prepare needs --prepare"),
        (Wishes(shards=4), "--shards 4 without the stage prepare"),
        (Wishes(times_s={"export": 60}), "Settings for export, which is not among the stages train"),
        (Wishes(stages=("prepare",), arguments={"prepare": "x --out=y"}), "--prepare holds --out, which is set from the run's settings"),
        (Wishes(stages=("prepare",), arguments={"prepare": "'x"}), "has an open quote"),
        (Wishes(stages=("prepare",), arguments={"prepare": "x\ny"}), "line break"),
        (Wishes(nodes=3), "is not divisible by micro_batch_size x data parallel size"),
        (Wishes(gpus_per_node=2, ranks_per_node=4), "Each GPU has one rank"),
    ],
)
def test_wishes_that_make_no_study_are_refused(wishes: Wishes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study_jobs("r", [], config(), load_site("nibi"), wishes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--site=nibbi"], "Unknown site 'nibbi'. Did you mean 'nibi'"),
        ([], "Say where: --site NAME"),
        (["--site=nibi"], "nibi wants an account. Pass --account def-professor"),
        (["--site=nibi", "--account=mine"], "Account 'mine' is none of nibi"),
        (["--site=nibi", "--account=def-x", "--time=200:00:00"], "takes jobs from 1:00:00 to 168:00:00"),
        (["--site=nibi", "--account=def-x", "--time=0:30:00"], "takes jobs from 1:00:00"),
        (["--site=nibi", "--account=def-x", "--time=24"], "Walltime '24' is not understood"),
        (["--site=nibi", "--account=def-x", "--gpus-per-node=16"], "16 GPUs per node, but nibi has 8"),
        (["--site=nibi", "--account=def-x", "--nodes=64", "train.global_batch_size=2048"], "64 nodes, but nibi has 36"),
        (["--site=nibi", "--account=def-x", "--cores=500"], "500 cores per node, but nibi has 112"),
        (["--site=nibi", "--account=def-x", "--memory=5000"], "5000 GiB of memory per node, but nibi has 2000"),
        (["--site=nibi", "--account=def-x", "--name=two words"], "Job name 'two words-prepare' does not do"),
        (["--site=nibi", "--account=def-x", "--name=a\nb"], "line break"),
        (["--site=nibi", "--account=def-x", "output_dir=runs/a\nb"], "line break"),
        (["--site=nibi", "--account=def-x"], "Runtime apptainer needs an image"),
        (["--site=nibi", "--account=def-x", "--image=absent.sif"], "Image absent.sif does not exist"),
        (["--site=nibi", "--account=def-x", "--runtime=docker"], "--runtime docker is not known"),
        (["--site=nibi", "--account=def-x", "--runtime=none", "--mount=data:/data"], "Mount 'data:/data' is not understood"),
        (["--site=local", "--runtime=none", "--mount=/absent:/data"], "/absent does not exist"),
        (["--site=local", "--nodes=2", "--ranks-per-node=1"], "local is one machine"),
        (["--site=nibi", "--account=def-x", "--runtime=none", "--secrets=open.env"], "can be read by others (mode 644). Run: chmod 600"),
        (["--site=nibi", "--account=def-x", "--runtime=none", "--secrets=absent.env"], "absent.env does not exist"),
        (
            ["--site=nibi", "--account=def-x", "--runtime=none", "--stages=prepare", "--prepare=x", "--shards=1001"],
            "1002 jobs, each shard counting as one, but nibi takes 1000",
        ),
    ],
)
def test_what_a_site_refuses_is_refused_before_anything_is_written(
    arguments: list[str], message: str, fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake_pbs
    Path("open.env").write_text("A=b\n")
    Path("open.env").chmod(0o644)
    code, out, err = sibol(
        capsys, monkeypatch, "submit", "continue_pretraining", "data.path=x", *arguments, *_prepared(arguments), "--dry-run"
    )
    assert (code, out) == (2, "") and message in err, err
    assert not Path("runs").exists()


def _prepared(arguments: list[str]) -> list[str]:
    """So that no test needs a dataset: the study prepares it."""
    return [] if any(word.startswith("--stages") for word in arguments) else ["--stages=prepare,train", "--prepare=x.jsonl --tokenizer t"]


def test_a_missing_dataset_or_model_is_found_before_the_job_is_queued(
    fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake_pbs
    common = ("submit", "continue_pretraining", "data.path=absent", "--site=local", "--dry-run")
    code, _, err = sibol(capsys, monkeypatch, *common)
    assert code == 1 and "Dataset folder absent does not exist" in err
    code, _, err = sibol(capsys, monkeypatch, *common, "--stages=prepare,train", "--prepare=x", "model.init_from=models/absent")
    assert code == 2 and "model.init_from=models/absent is not a folder" in err


@pytest.mark.parametrize("site", site_names())
def test_a_dry_run_prints_scripts_and_commands_and_leaves_nothing(
    site: str, fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = sibol(capsys, monkeypatch, "submit", "course_100m", "data.path=x", f"--site={site}", "--stages=prepare,train,evaluate",
                           "--prepare=x.jsonl --tokenizer t", "--account=def-x", "--runtime=none", "--dry-run")  # fmt: skip
    assert code == 0, err
    assert out.count("#!/bin/bash") == 3 and out.count("exec bash") == 3
    assert not Path("runs").exists() and not fake_pbs.submitted()


def test_jobs_are_handed_to_pbs_with_dependencies_arrays_and_account(
    fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("secrets.env").write_text(f"HF_TOKEN={SECRET}\n")
    Path("secrets.env").chmod(0o600)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    code, out, err = sibol(capsys, monkeypatch, "submit", "course_100m", "data.path=x", "--site=pbs-enroot",
                           "--stages=prepare,train,export", "--prepare=x.jsonl --tokenizer t", "--shards=20", "--chain=2", "--account=lab",
                           "--runtime=none",
                           "--secrets=secrets.env")  # fmt: skip
    assert code == 0, err
    (folder,) = Path("runs/jobs").resolve().iterdir()
    script = [str(folder / f"course_100m-{name}.pbs") for name in ("prepare", "merge", "train", "train-2", "export")]
    assert fake_pbs.submitted() == [
        ["-A", "lab", "-J", "1-20", script[0]],
        ["-A", "lab", "-W", "depend=afterok:1[].vm", script[1]],
        ["-A", "lab", "-W", "depend=afterok:2.vm", script[2]],
        ["-A", "lab", "-W", "depend=afterany:3.vm", script[3]],
        ["-A", "lab", "-W", "depend=afterok:4.vm", script[4]],
    ]
    for path in script:
        pbs.parse(Path(path).read_text())
    assert "course_100m-prepare: job 1[].vm of 20 shards" in out and "qdel '1[].vm' 2.vm 3.vm 4.vm 5.vm" in out
    record = json.loads((folder / "submission.json").read_text())
    assert [job["id"] for job in record["jobs"]] == ["1[].vm", "2.vm", "3.vm", "4.vm", "5.vm"]
    files = [*folder.iterdir(), *fake_pbs.record.iterdir()]
    assert len(files) == 11 and not [path for path in files if SECRET in path.read_text()] and SECRET not in out


def test_what_pbs_says_of_jobs_is_listed(
    fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sibol(capsys, monkeypatch, "submit", "course_100m", "data.path=x", "--site=pbs-enroot", "--stages=prepare,train,export",
          "--prepare=x.jsonl --tokenizer t", "--shards=2", "--runtime=none")  # fmt: skip
    jobs = {"1[].vm": {"job_state": "B"}, "2.vm": {"job_state": "F", "Exit_status": 0}, "3.vm": {"job_state": "F", "Exit_status": 75}}
    fake_pbs.answer_qstat(json.dumps({"Jobs": jobs}))
    code, out, _ = sibol(capsys, monkeypatch, "jobs", "--json")
    assert code == 0 and [row["state"] for row in json.loads(out)] == ["running", "completed", "failed (75)", "left the queue"]
    fake_pbs.answer_qstat("qstat: cannot connect")
    code, _, err = sibol(capsys, monkeypatch, "jobs")
    assert code == 1 and "something else than JSON" in err


def test_when_the_scheduler_refuses_one_the_earlier_ones_are_named_and_recorded(
    fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pbs.refuse(2)
    code, _, err = sibol(capsys, monkeypatch, "submit", "course_100m", "data.path=x", "--site=pbs-enroot", "--stages=prepare,train",
                         "--prepare=x.jsonl --tokenizer t", "--runtime=none")  # fmt: skip
    assert code == 1 and "course_100m-train was not submitted" in err and "Unknown queue" in err and "qdel 1.vm" in err
    (record,) = Path("runs/jobs").glob("*/submission.json")
    assert [job["id"] for job in json.loads(record.read_text())["jobs"]] == ["1.vm", None]


def test_an_image_is_named_by_its_whole_path(
    fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake_pbs
    Path("my image.sqsh").touch()
    code, out, err = sibol(capsys, monkeypatch, "submit", "course_100m", "data.path=x", "--site=slurm-pyxis", *_prepared([]),
                           "--image=my image.sqsh", "--dry-run")  # fmt: skip
    assert code == 0 and f"export SIBOL_JOB_IMAGE='{Path.cwd()}/my image.sqsh'\n" in out, err


@pytest.mark.parametrize(("site", "name"), [("nibi", "sibol.sif"), ("pbs-enroot", "sibol.sqsh"), ("slurm-pyxis", "sibol.sqsh")])
def test_without_an_image_the_one_that_was_built_for_the_runtime_is_taken(
    site: str, name: str, fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake_pbs
    images = Path("images").resolve()
    monkeypatch.setattr("jobs.submission.IMAGES", images)
    common = ("submit", "course_100m", "data.path=x", f"--site={site}", "--account=def-x", *_prepared([]), "--dry-run")
    code, _, err = sibol(capsys, monkeypatch, *common)
    program = "apptainer" if name.endswith(".sif") else "enroot"
    assert code == 2 and f"needs an image, and {images / name} does not exist. Build it (containers/build.sh {program})" in err
    images.mkdir()
    (images / name).touch()
    code, out, err = sibol(capsys, monkeypatch, *common)
    assert code == 0 and f"export SIBOL_JOB_IMAGE={images / name}\n" in out, err
    code, out, err = sibol(capsys, monkeypatch, *common, "--runtime=none")
    assert code == 0 and name not in out, err


def test_a_run_folder_of_an_unfinished_job_is_refused(
    fake_pbs: pbs.FakePbs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("submit", "course_100m", "data.path=x", "--site=pbs-enroot", *_prepared([]), "--runtime=none")
    assert sibol(capsys, monkeypatch, *common)[0] == 0
    fake_pbs.answer_qstat(json.dumps({"Jobs": {"1.vm": {"job_state": "F", "Exit_status": 0}, "2.vm": {"job_state": "H"}}}))
    code, _, err = sibol(capsys, monkeypatch, *common)
    folder = Path("runs/course_100m").resolve()
    assert code == 1 and f"Run folder {folder} is that of course_100m-train, job 2.vm, which was submitted at" in err and "is held" in err
    assert "stop it with `qdel 2.vm`" in err and len(list(Path("runs/jobs").iterdir())) == 1
    assert sibol(capsys, monkeypatch, *common, "output_dir=runs/other")[0] == 0
    fake_pbs.answer_qstat(json.dumps({"Jobs": {"1.vm": {"job_state": "F"}, "2.vm": {"job_state": "F", "Exit_status": 75}}}))
    assert sibol(capsys, monkeypatch, *common)[0] == 0
