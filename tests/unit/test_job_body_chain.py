"""A job is continued only when its run says so and got further; how depends on the scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stand_ins import SCONTROL, Cluster

RUN = "runs/a run"
# Each start does two steps of `steps` and leaves the mark that the trainer would.
TRAINER = """
mkdir -p "$RUN"; first=$(cat "$RUN/step" 2>/dev/null || echo 0); step=$((first + 2)); echo "$step" >"$RUN/step"
if ((step >= $1)); then echo "{\\"step\\": $step}" >"$RUN/DONE"; exit 0; fi
printf '{\\n  "step": %d,\\n  "first_step": %d,\\n  "reason": "deadline"\\n}\\n' "$step" "$first" >"$RUN/REQUEUE"; exit 75
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def train(steps: int) -> tuple[str, ...]:
    return ("bash", "-c", f'RUN="{RUN}"\n{TRAINER}', "bash", str(steps))


def leave(marker: str | None, code: int) -> tuple[str, ...]:
    """A command that leaves RUN/REQUEUE with this text."""
    return ("bash", "-c", f'mkdir -p "{RUN}"; [[ -z $1 ]] || echo "$1" >"{RUN}/REQUEUE"; exit {code}', "bash", marker or "")


def test_a_bare_box_runs_it_again_until_it_is_done(cluster: Cluster) -> None:
    environment = cluster.environment(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="5", SIBOL_JOB_WALLTIME_S="60")
    result = cluster.run(environment, *train(7))
    assert result.returncode == 0, result.stderr
    assert (cluster.work / RUN / "step").read_text() == "8\n"
    assert result.stderr.count("continues, hop") == 3
    assert not (cluster.work / RUN / "REQUEUE").exists()


def test_hops_are_limited(cluster: Cluster) -> None:
    environment = cluster.environment(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="2")
    result = cluster.run(environment, *train(100))
    assert result.returncode == 75
    assert (cluster.work / RUN / "step").read_text() == "6\n"
    assert "continued 2 times already (SIBOL_JOB_MAX_HOPS=2)" in result.stderr


def test_slurm_requeues_the_same_job(cluster: Cluster) -> None:
    environment = cluster.slurm(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="2", SIBOL_JOB_SCRIPT="/x/job.sbatch")
    result = cluster.run(environment, *train(100))
    assert result.returncode == 75
    assert ["requeue", "4711"] in cluster.calls("scontrol")
    restarted = cluster.run({**environment, "SLURM_RESTART_COUNT": "2"}, *train(100))
    assert restarted.returncode == 75 and "hop 2" in restarted.stderr
    assert cluster.calls("scontrol").count(["requeue", "4711"]) == 1


def test_where_slurm_refuses_to_requeue_the_script_is_submitted_again_one_hop_on(cluster: Cluster) -> None:
    environment = cluster.slurm(
        SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="3", SIBOL_JOB_HOP="1", SIBOL_JOB_SCRIPT="/x/a job.sbatch", SLURM_JOB_ACCOUNT="lab"
    )
    cluster.add("scontrol", SCONTROL + "[[ $1 == show ]] || exit 1")
    cluster.add("sbatch", 'touch "got ${HF_TOKEN-none}"; echo 4712')
    secrets = cluster.folder / "secrets.env"
    secrets.write_text("HF_TOKEN=sesame\n", encoding="utf-8")
    secrets.chmod(0o600)
    given = {"SIBOL_JOB_ARGUMENTS": "2", "SIBOL_JOB_SECRETS": str(secrets)}
    result = cluster.run({**environment, **given}, *train(100), "train.lr=1", "two words")
    assert result.returncode == 75
    options = ["--parsable", "--account=lab", "--export=ALL,SIBOL_JOB_HOP=2"]
    assert cluster.calls("sbatch") == [[*options, "/x/a job.sbatch", "train.lr=1", "two words"]]
    assert (cluster.work / "got none").exists(), "sbatch keeps its environment with the job, where secrets do not belong"
    assert "continued by job 4712" in result.stderr


def test_pbs_submits_the_script_again_after_this_job(cluster: Cluster) -> None:
    environment = cluster.pbs(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="3", SIBOL_JOB_SCRIPT="/x/a job.pbs")
    result = cluster.run(environment, *train(100))
    assert result.returncode == 75
    assert cluster.calls("qsub") == [["-W", "depend=afterany:4711.server", "-v", "SIBOL_JOB_HOP=1,SIBOL_JOB_MAX_HOPS", "/x/a job.pbs"]]
    assert "continued by job 4712.server" in result.stderr


def test_under_pbs_what_a_person_set_on_submission_is_handed_on_by_name(cluster: Cluster) -> None:
    given = {"SIBOL_JOB_IMAGE": "/x/a,b.sif", "SIBOL_JOB_MODULES": "", "SIBOL_JOB_MOUNTS": "/tmp:/a\n/tmp:/b", "PBS_ACCOUNT": "lab 1"}
    environment = cluster.pbs(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="3", SIBOL_JOB_SCRIPT="/x/job.pbs", **given)
    assert cluster.run(environment, *train(100)).returncode == 75
    [call] = cluster.calls("qsub")
    assert call[:5] == ["-W", "depend=afterany:4711.server", "-A", "lab 1", "-v"]
    assert call[5:] == ["SIBOL_JOB_HOP=1,SIBOL_JOB_IMAGE,SIBOL_JOB_MODULES,SIBOL_JOB_MAX_HOPS", "/x/job.pbs"]


def test_a_submission_that_fails_says_what_to_do_by_hand(cluster: Cluster) -> None:
    environment = cluster.pbs(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="3", SIBOL_JOB_SCRIPT="/x/job.pbs")
    cluster.add("qsub", code=1)
    result = cluster.run(environment, *train(100))
    assert result.returncode == 1 and "Submit /x/job.pbs again by hand" in result.stderr


@pytest.mark.parametrize(
    ("marker", "code", "expected", "message"),
    [
        ('{"step": 5, "first_step": 5}', 75, 75, "it would never end; not continued"),
        ('{"step": 4, "first_step": 5}', 75, 75, "it would never end; not continued"),
        ("{}", 75, 75, "names no step and first_step"),
        (None, 75, 75, "with exit code 75"),
        ('{"step": 9, "first_step": 5}', 1, 1, "with exit code 1"),
        ('{"step": 9, "first_step": 5}', 137, 137, "with exit code 137"),
        (None, 0, 75, "with exit code 75"),
    ],
    ids=["no step", "backwards", "damaged", "no mark", "failed", "killed", "ended without a mark"],
)
def test_nothing_is_continued_without_a_mark_of_progress(
    marker: str | None, code: int, expected: int, message: str, cluster: Cluster
) -> None:
    for environment in (
        cluster.slurm(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="9"),
        cluster.pbs(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="9"),
        cluster.environment(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="9"),
    ):
        result = cluster.run(environment, *leave(marker, code))
        assert result.returncode == expected
        assert message in result.stderr
    assert cluster.calls("qsub") == []
    assert all(call[0] == "show" for call in cluster.calls("scontrol"))


def test_the_mark_of_an_earlier_job_does_not_count(cluster: Cluster) -> None:
    run = cluster.work / RUN
    run.mkdir(parents=True)
    (run / "REQUEUE").write_text('{"step": 9, "first_step": 5}')
    (run / "STOP").write_text("requeue\nby job 4710\n")
    result = cluster.run(cluster.slurm(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="9"), "bash", "-c", f"[[ ! -e '{RUN}/STOP' ]] && exit 75")
    assert result.returncode == 75
    assert all(call[0] == "show" for call in cluster.calls("scontrol"))


@pytest.mark.parametrize("word", ["", "stop\n", "requeue\n"])
def test_a_persons_stop_made_while_the_job_waits_reaches_its_run(word: str, cluster: Cluster) -> None:
    run = cluster.work / RUN
    run.mkdir(parents=True)
    (run / "STOP").write_text(word)
    script = f'kill -USR1 $PPID; kill -USR1 $(ps -o ppid= $PPID); sleep 0.5; cat "{RUN}/STOP"; touch "{RUN}/DONE"'
    result = cluster.run(cluster.environment(SIBOL_JOB_RUN_DIR=RUN), "bash", "-c", script)
    assert (result.returncode, result.stdout) == (0, word), result.stderr
    assert "asked to stop (requeue)" in result.stderr


@pytest.mark.parametrize("nodes", ["n1", "n1,n2"])
def test_a_run_that_somebody_stopped_is_no_success_on_any_number_of_nodes(nodes: str, cluster: Cluster) -> None:
    environment = cluster.slurm(nodes, SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="9")
    assert cluster.run(environment, *leave(None, 75)).returncode == 75
    assert all(call[0] == "show" for call in cluster.calls("scontrol"))
    assert cluster.run(environment, "bash", "-c", f'touch "{RUN}/DONE"').returncode == 0


@pytest.mark.parametrize("settings", [{}, {"SIBOL_JOB_INTERNET": "maybe"}], ids=["in its run", "before its run"])
def test_a_job_that_fails_leaves_no_mark_that_the_next_one_would_take_for_its_own(settings: dict[str, str], cluster: Cluster) -> None:
    run = cluster.work / RUN
    run.mkdir(parents=True)
    (run / "DONE").write_text('{"step": 9}')
    (run / "REQUEUE").write_text('{"step": 9, "first_step": 5}')
    environment = cluster.pbs(SIBOL_JOB_RUN_DIR=RUN)
    assert cluster.run({**environment, **settings}, "bash", "-c", "exit 1").returncode == 1
    following = cluster.run({**environment, "SIBOL_JOB_HOP": "1"}, "touch", "started")
    assert following.returncode == 1 and "neither DONE nor REQUEUE" in following.stderr
    assert not (cluster.work / "started").exists()


def test_on_several_nodes_the_mark_says_that_the_run_stopped_early(cluster: Cluster) -> None:
    environment = cluster.slurm("n1,n2", SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_MAX_HOPS="1")
    result = cluster.run(environment, *leave('{"step": 9, "first_step": 5}', 75))
    assert result.returncode == 75
    assert ["requeue", "4711"] in cluster.calls("scontrol")


def test_hops_that_were_submitted_beforehand_run_only_when_it_is_their_turn(cluster: Cluster) -> None:
    run = cluster.work / RUN
    run.mkdir(parents=True)
    environment = cluster.pbs(SIBOL_JOB_RUN_DIR=RUN, SIBOL_JOB_HOP="2")
    touch = ("bash", "-c", "touch started")
    neither = cluster.run(environment, *touch)
    assert neither.returncode == 1 and "neither DONE nor REQUEUE" in neither.stderr
    (run / "DONE").write_text('{"step": 9}')
    done = cluster.run(environment, *touch)
    assert done.returncode == 0 and "finished already" in done.stderr
    assert (run / "DONE").exists()
    assert not (cluster.work / "started").exists()
    (run / "DONE").unlink()
    (run / "REQUEUE").write_text('{"step": 9, "first_step": 5}')
    assert cluster.run(environment, "bash", "-c", f'touch started "{RUN}/DONE"').returncode == 0
    assert (cluster.work / "started").exists()
