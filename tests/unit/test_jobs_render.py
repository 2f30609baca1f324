"""Scripts: directives before code, values as the one word they are, the studies' scripts as they are rendered."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.job import Job, request_of
from jobs.render import Container, Place, render
from jobs.site import Site, load_site
from jobs.studies import HERE, ready_made, study_jobs
from nemo_ext.common.errors import ConfigError
from tests.support import pbs

READY_MADE = ready_made()
AWKWARD = ("a b", "it's", '"quoted"', "$HOME", "$(touch x)", "`id`", "a,b", "a;b", "-", "*", "\\", "naïve ñ", "#", "a=b c", "~", "!")
JOB = Job("train", ("sibol", "train", "demo"), 3600, gpus_per_node=8, ranks_per_node=8, run_dir="runs/demo", max_hops=3)


def script(job: Job, site: str | Site = "nibi", place: Place | None = None, container: Container | None = None) -> str:
    facts = load_site(site) if isinstance(site, str) else site
    return render(job, facts, place or Place("/jobs/x.sbatch", "/jobs", "/project"), container or Container("none"))


def what_the_body_gets(text: str, folder: Path, *more: str) -> tuple[list[str], dict[str, str]]:
    """argv and environment of the body, by running the script with a body that prints both."""
    body = folder / "jobs" / "body"
    body.mkdir(parents=True, exist_ok=True)
    dump = "import json, os, sys; print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k.startswith('SIBOL_')}]))"
    (body / "job.sh").write_text(f'{sys.executable} -c {shlex.quote(dump)} "$@"\n')
    path = folder / "script"
    path.write_text(text)
    result = subprocess.run(
        ["bash", str(path), *more], cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    argv, environment = json.loads(result.stdout)
    return argv, environment


@pytest.mark.parametrize("scheduler", ["nibi", "pbs-enroot", "local"])
def test_awkward_values_reach_the_body_as_they_are(scheduler: str, tmp_path: Path) -> None:
    project = tmp_path / "a project, with 'quotes' and $HOME"
    job = dataclasses.replace(JOB, command=AWKWARD, run_dir="runs/a b $x", nodes=1)
    mounts = ("/a b:/c", "/it's,$HOME:/d:ro")
    container = Container("none", "/images/my image.sif", mounts, "/home/me/my secrets.env")
    text = script(job, scheduler, Place("/jobs/my script", "/jobs", str(project)), container)
    argv, environment = what_the_body_gets(text, project, "train.max_steps=1", "x y")
    assert argv == [*AWKWARD, "train.max_steps=1", "x y"]
    assert environment["SIBOL_PROJECT"] == str(project)
    assert environment["SIBOL_JOB_RUN_DIR"] == "runs/a b $x"
    assert environment["SIBOL_JOB_IMAGE"] == "/images/my image.sif"
    assert environment["SIBOL_JOB_MOUNTS"].split("\n") == list(mounts)
    assert environment["SIBOL_JOB_SCRIPT"] == "/jobs/my script"
    assert environment["SIBOL_JOB_SECRETS"] == "/home/me/my secrets.env"


@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"])))
def test_any_line_is_one_word_of_the_script(word: str) -> None:
    text = script(dataclasses.replace(JOB, command=("sibol", word)))
    assert shlex.split(text[text.index("exec bash") :])[3:] == ["sibol", word, "$@"]


@pytest.mark.parametrize("name", sorted(READY_MADE))
def test_the_studies_scripts_are_what_is_rendered(name: str) -> None:
    assert (HERE / name).read_text() == READY_MADE[name], "Run: python -m jobs.studies"


def test_no_script_of_a_study_that_is_no_more_lies_around() -> None:
    assert {path.name for suffix in ("*.sbatch", "*.pbs") for path in HERE.glob(suffix)} == set(READY_MADE)


@pytest.mark.parametrize("job", study_jobs(), ids=lambda job: job.name)
def test_the_studies_recipes_and_settings_exist_and_fit_their_nodes(job: Job) -> None:
    from nemo_ext.config import apply_overrides, check_run
    from recipes import load_recipe

    if job.command[1] != "train":
        assert job.command[1] == "data"
        return
    config = apply_overrides(load_recipe(job.command[2]), list(job.command[3:]))
    assert config.output_dir == job.run_dir
    check_run(config, job.nodes * job.ranks_per_node)


def test_every_directive_stands_before_code() -> None:
    for name, text in READY_MADE.items():
        lines = text.splitlines()
        code = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        late = [line for line in lines[code:] if line.startswith(("#SBATCH", "#PBS"))]
        assert lines[0] == "#!/bin/bash" and not late, name
        if name.endswith(".pbs"):
            pbs.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        "#!/bin/bash\necho\n#PBS -l walltime=1:00:00\n",
        "#!/bin/sh\n#PBS -N x\n",
        "#!/bin/bash\n#PBS -N two words\n",
        "#!/bin/bash\n#PBS -l gpus=8\n",
        "#!/bin/bash\n#PBS -l select=0:ncpus=1\n",
        "#!/bin/bash\n#PBS -V yes\n",
        "#!/bin/bash\n#PBS -N x\n#PBS -N y\n",
        "#!/bin/bash\n#PBS -N x\n#PBS -o logs\n",
    ],
)
def test_the_reader_of_pbs_directives_sees_what_is_wrong(wrong: str) -> None:
    with pytest.raises(pbs.PbsError):
        pbs.parse(wrong)


def test_shellcheck_finds_nothing_in_any_rendered_script(tmp_path: Path) -> None:
    awkward = dataclasses.replace(JOB, command=AWKWARD, run_dir="it's $x", shards=3)
    texts = {**READY_MADE, **{site: script(dataclasses.replace(awkward, name=site), site) for site in ("nibi", "pbs-enroot", "local")}}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    result = subprocess.run([str(shellcheck), *texts], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_a_pbs_job_asks_for_alike_chunks_on_nodes_of_their_own() -> None:
    read = pbs.parse(script(dataclasses.replace(JOB, nodes=2), "pbs-enroot"))
    assert read.resources == {"select": "2:ncpus=64:mpiprocs=1:ngpus=8:mem=500gb", "place": "scatter:excl", "walltime": "1:00:00"}
    half = pbs.parse(script(dataclasses.replace(JOB, gpus_per_node=4), "pbs-enroot"))
    assert half.resources["select"] == "1:ncpus=32:mpiprocs=1:ngpus=4:mem=250gb" and half.resources["place"] == "scatter"


def test_a_site_adds_directives_and_a_queue() -> None:
    site = dataclasses.replace(load_site("nibi"), queue="gpu", extra_directives=["--switches=1", "--mail-type=END"])
    text = script(JOB, site)
    assert "#SBATCH --partition=gpu\n" in text and "#SBATCH --switches=1\n#SBATCH --mail-type=END\n" in text


def test_requests_are_in_proportion_to_the_gpus() -> None:
    nibi = load_site("nibi")
    assert dataclasses.astuple(request_of(JOB, nibi)) == (8, 112, None, True)
    assert dataclasses.astuple(request_of(dataclasses.replace(JOB, gpus_per_node=2), nibi)) == (2, 28, 500, False)
    assert dataclasses.astuple(request_of(dataclasses.replace(JOB, gpus_per_node=0), nibi)) == (0, 16, 64, False)
    assert dataclasses.astuple(request_of(dataclasses.replace(JOB, cores=4, memory_gib=3.5), nibi)) == (8, 4, 3.5, False)


@pytest.mark.parametrize("logs", ["/logs\n#SBATCH --mem=1", '/lo"gs', "/logs/%u", "/lo\\gs"])
def test_slurm_log_folders_that_would_be_read_otherwise_are_refused(logs: str) -> None:
    with pytest.raises(ConfigError, match="Log folder"):
        script(JOB, place=Place("/x", logs, "/p"))


@pytest.mark.parametrize("logs", ["/a b", "/a,b", "host:/a", "/a\n", "/$HOME"])
def test_pbs_log_folders_that_would_be_read_otherwise_are_refused(logs: str) -> None:
    with pytest.raises(ConfigError, match="Log folder"):
        script(JOB, "pbs-enroot", Place("/x", logs, "/p"))


def test_the_studies_scripts_run_from_the_folder_they_are_submitted_from(tmp_path: Path) -> None:
    argv, environment = what_the_body_gets(READY_MADE["run_cpt_patok.sbatch"], tmp_path, "train.max_steps=5")
    assert environment["SIBOL_PROJECT"] == str(tmp_path)
    assert environment["SIBOL_JOB_SCRIPT"] == f"{tmp_path}/jobs/run_cpt_patok.sbatch"
    assert argv[:3] == ["sibol", "train", "continue_pretraining"] and argv[-1] == "train.max_steps=5"
    argv, environment = what_the_body_gets(READY_MADE["preprocess_data_patok.pbs"], tmp_path)
    assert environment["SIBOL_JOB_SHARDS"] == "20" and argv[:3] == ["sibol", "data", "prepare"]
