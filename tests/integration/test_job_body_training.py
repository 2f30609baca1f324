"""The body of a job around a real training run: two machines that share no environment, a walltime that is too short, a second job."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nemo_ext.common.files import read_json
from nemo_ext.config import to_yaml
from nemo_ext.engine.run_folder import RunFolder
from tests.support.stand_ins import Cluster
from tests.support.training import exact, read_metrics, small_run, train_on_ranks

SETTINGS = ["train.max_steps=3", "schedule.warmup_steps=0", "parallel.tp=2", "train.threads=1", "validation.every_steps=1"]


def test_two_pbs_nodes_run_out_of_time_and_the_job_after_them_finishes_bit_identical(dataset: Path, tmp_path: Path) -> None:
    expected = train_on_ranks(2, small_run(tmp_path / "whole", dataset, *SETTINGS))
    cluster = Cluster(tmp_path / "cluster")
    cluster.add("sibol", f'exec "{sys.executable}" -W ignore -m recipes.cli.main "$@"')
    folder = RunFolder(cluster.work / "runs" / "a run")
    recipe = tmp_path / "run.yaml"
    recipe.write_text(to_yaml(small_run(folder.path, dataset, *SETTINGS)), encoding="utf-8")
    job = {"SIBOL_JOB_NODES": "2", "SIBOL_JOB_RANKS_PER_NODE": "1", "SIBOL_JOB_RUN_DIR": "runs/a run", "SIBOL_JOB_MAX_HOPS": "3"}
    # a port that is this test's own: the body derives it from the job's number
    number = str(5000 + os.getpid() % 5000)

    first = cluster.run(
        cluster.pbs("n1", "n2", PBS_JOBID=f"{number}.server", SIBOL_JOB_SCRIPT="job.pbs", **{**job, "SIBOL_JOB_WALLTIME_S": "1"}),
        *("sibol", "train", str(recipe)),
    )
    assert first.returncode == 75, first.stderr
    assert folder.steps() == [1], "time was up before the first step, so one step is what there is to show"
    assert read_json(folder.requeue) == {"step": 1, "first_step": 0, "reason": "deadline"}
    assert cluster.calls("qsub") == [["-W", f"depend=afterany:{number}.server", "-v", "SIBOL_JOB_HOP=1,SIBOL_JOB_MAX_HOPS", "job.pbs"]]

    second = cluster.run(
        cluster.pbs("n1", "n2", PBS_JOBID=f"{int(number) + 1}.server", SIBOL_JOB_HOP="1", **job), "sibol", "train", str(recipe)
    )
    assert second.returncode == 0, second.stderr
    assert read_json(folder.done) == {"step": 3} and not folder.requeue.exists()
    lines = read_metrics(folder.path)
    assert exact(lines) == exact(expected)
    assert {line["ranks"] for line in lines if "event" in line} == {2}
    assert len(cluster.calls("qsub")) == 1
    assert not list(cluster.work.glob(".sibol*"))
