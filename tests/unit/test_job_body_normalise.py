"""Whatever the scheduler, the command sees the same variables; what is missing ends the job before it starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.stand_ins import Cluster

SHOW = ("bash", "-c", "env | grep -E '^(SIBOL_JOB_|OMP_)' | sort; pwd")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def shown(output: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def test_slurm_and_pbs_and_no_scheduler_give_the_same_variables(cluster: Cluster) -> None:
    environments = [
        cluster.slurm(SLURM_ARRAY_TASK_ID="3"),
        cluster.pbs(PBS_JOBID="4711[3].server", PBS_ARRAY_INDEX="3"),
        cluster.environment(SIBOL_JOB_ARRAY_INDEX="3", SIBOL_JOB_WALLTIME_S="3600"),
    ]
    for environment in environments:
        began_s = time.time()
        result = cluster.run(environment, *SHOW)
        assert result.returncode == 0, result.stderr
        found = shown(result.stdout)
        assert found["SIBOL_JOB_ARRAY_INDEX"] == "3"
        assert found["SIBOL_JOB_NODES"] == "1" and found["SIBOL_JOB_NODE_RANK"] == "0" and found["SIBOL_JOB_HOP"] == "0"
        assert began_s - 1 <= int(found["SIBOL_JOB_DEADLINE"]) - 3600 <= time.time()
        assert 20000 <= int(found["SIBOL_JOB_MASTER_PORT"]) < 32768
        assert found["SIBOL_JOB_MASTER_ADDR"]
        assert "OMP_NUM_THREADS" not in found
        assert result.stdout.splitlines()[-1] == str(cluster.work)


def test_the_schedulers_own_word_on_the_end_counts_more_than_the_walltime(cluster: Cluster) -> None:
    found = shown(cluster.run(cluster.slurm(SLURM_JOB_END_TIME="1900000000"), *SHOW).stdout)
    assert found["SIBOL_JOB_DEADLINE"] == "1900000000"


def test_a_node_that_pbs_names_once_for_each_process_is_one_node(cluster: Cluster) -> None:
    found = shown(cluster.run(cluster.pbs("n1", "n1", "n1"), *SHOW).stdout)
    assert found["SIBOL_JOB_NODES"] == "1"


def test_ranks_per_node_are_the_gpus_unless_said_otherwise(cluster: Cluster) -> None:
    assert shown(cluster.run(cluster.slurm(SIBOL_JOB_GPUS_PER_NODE="8"), *SHOW).stdout)["SIBOL_JOB_RANKS_PER_NODE"] == "8"
    both = cluster.slurm(SIBOL_JOB_GPUS_PER_NODE="8", SIBOL_JOB_RANKS_PER_NODE="4")
    assert shown(cluster.run(both, *SHOW).stdout)["SIBOL_JOB_RANKS_PER_NODE"] == "4"
    assert "SIBOL_JOB_RANKS_PER_NODE" not in shown(cluster.run(cluster.slurm(SIBOL_JOB_GPUS_PER_NODE="0"), *SHOW).stdout)


@pytest.mark.parametrize(
    ("scheduler", "settings", "message"),
    [
        ("slurm", {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID is not set"),
        ("slurm", {"SLURM_JOB_NODELIST": ""}, "SLURM_JOB_NODELIST is not set"),
        ("slurm", {"SIBOL_JOB_WALLTIME_S": ""}, "SIBOL_JOB_WALLTIME_S= is not a whole number"),
        ("slurm", {"SIBOL_JOB_WALLTIME_S": "24:00:00"}, "SIBOL_JOB_WALLTIME_S=24:00:00 is not a whole number"),
        ("slurm", {"SIBOL_JOB_NODES": "2"}, "rendered for 2 nodes, but slurm gave 1: n1"),
        ("slurm", {"SLURM_SUBMIT_DIR": "/not/there"}, "The folder of submission, /not/there, is not there"),
        ("slurm", {"SIBOL_JOB_SCHEDULER": "lsf"}, "SIBOL_JOB_SCHEDULER=lsf is not known"),
        ("pbs", {"PBS_JOBID": ""}, "PBS_JOBID is not set"),
        ("pbs", {"PBS_NODEFILE": "/not/there"}, "PBS_NODEFILE=/not/there cannot be read"),
        ("none", {"SIBOL_JOB_NODES": "2"}, "without a scheduler there is one node"),
        ("none", {"SIBOL_JOB_INTERNET": "maybe"}, "SIBOL_JOB_INTERNET=maybe is not known"),
        ("none", {"SIBOL_JOB_OFFLINE_CACHE": "/not/there"}, "sibol stage"),
        ("none", {"SIBOL_JOB_MODULES": "apptainer"}, "has no command `module`"),
    ],
)
def test_what_is_missing_or_wrong_ends_the_job_with_a_word_on_it(
    scheduler: str, settings: dict[str, str], message: str, cluster: Cluster
) -> None:
    base = {"slurm": cluster.slurm, "pbs": cluster.pbs, "none": cluster.environment}[scheduler]()
    result = cluster.run({**base, **settings}, "touch", "started")
    assert result.returncode == 1
    assert message in result.stderr
    assert not (cluster.work / "started").exists()


def test_modules_are_loaded_in_a_clean_set(cluster: Cluster) -> None:
    environment = cluster.environment(SIBOL_JOB_MODULES="apptainer cuda/12.9")
    environment["BASH_FUNC_module%%"] = '() { echo "module $*"; }'
    result = cluster.run(environment, "true")
    assert result.stdout.splitlines() == ["module purge", "module load apptainer cuda/12.9"]


def test_a_site_without_internet_tells_every_program(cluster: Cluster, tmp_path: Path) -> None:
    run = cluster.work / "run 1"
    offline = run / "wandb" / "offline-run-1"
    offline.mkdir(parents=True)
    cache = tmp_path / "hugging face"
    cache.mkdir()
    environment = cluster.environment(SIBOL_JOB_INTERNET="false", SIBOL_JOB_OFFLINE_CACHE=str(cache), SIBOL_JOB_RUN_DIR=str(run))
    result = cluster.run(environment, "bash", "-c", "env | grep -E 'OFFLINE|WANDB_MODE|HF_HOME' | sort")
    assert result.stdout.splitlines() == [
        "HF_DATASETS_OFFLINE=1",
        f"HF_HOME={cache}",
        "HF_HUB_OFFLINE=1",
        f"SIBOL_JOB_OFFLINE_CACHE={cache}",
        "TRANSFORMERS_OFFLINE=1",
        "WANDB_MODE=offline",
    ]
    assert f"wandb sync {str(run).replace(' ', chr(92) + ' ')}/wandb/offline-run-*" in result.stderr


def test_temporary_files_go_to_a_local_disk_and_are_removed(cluster: Cluster, tmp_path: Path) -> None:
    environment = cluster.environment()
    for below in (environment["TMPDIR"], "/tmp", ""):
        result = cluster.run({**environment, "TMPDIR": below}, "bash", "-c", "touch $TMPDIR/file; echo $TMPDIR")
        own = Path(result.stdout.strip())
        assert own.parent == Path(below or "/tmp") and own.name.startswith("sibol-job."), "jobs may share TMPDIR"
        assert not own.exists() and own.parent.exists()
