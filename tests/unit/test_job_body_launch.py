"""The command runs once on every node, with its exit code, whatever is signalled meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.stand_ins import REPOSITORY, Cluster

ODD_WORDS = ["two words", "quote'\"", "$HOME $(touch run)", "a,b", "*", "back\\slash", ""]
NODE_FACTS = (
    'echo "$SIBOL_JOB_NODE_RANK of $SIBOL_JOB_NODES at $SIBOL_JOB_MASTER_ADDR:$SIBOL_JOB_MASTER_PORT until $SIBOL_JOB_DEADLINE, $PWD"'
)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} does not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["none", "slurm", "slurm of two", "pbs of two"])
def test_the_command_arrives_word_by_word(kind: str, cluster: Cluster) -> None:
    environment = {
        "none": cluster.environment,
        "slurm": cluster.slurm,
        "slurm of two": lambda: cluster.slurm("n1,n2"),
        "pbs of two": lambda: cluster.pbs("n1", "n2"),
    }[kind]()
    result = cluster.run(environment, "bash", "-c", 'printf "<%s>" "$@" >"words $SIBOL_JOB_NODE_RANK"', "bash", *ODD_WORDS)
    assert result.returncode == 0, result.stderr
    files = sorted(cluster.work.glob("words *"))
    assert len(files) == (2 if "two" in kind else 1)
    for file in files:
        assert file.read_text() == "".join(f"<{word}>" for word in ODD_WORDS)
    assert [entry.name for entry in cluster.work.iterdir() if not entry.name.startswith("words")] == []


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_every_node_knows_its_rank_and_where_the_ranks_meet(scheduler: str, cluster: Cluster) -> None:
    settings = {"SIBOL_JOB_NODES": "3", "SIBOL_JOB_RANKS_PER_NODE": "4"}
    environment = (
        cluster.slurm("n1,n2,n3", SLURM_CPUS_PER_TASK="16", **settings)
        if scheduler == "slurm"
        else cluster.pbs("n1", "n1", "n2", "n2", "n3", "n3", **settings)
    )
    result = cluster.run(environment, "bash", "-c", NODE_FACTS)
    assert result.returncode == 0, result.stderr
    lines = sorted(result.stdout.splitlines())
    assert [line[:5] for line in lines] == ["0 of ", "1 of ", "2 of "]
    assert len({line[5:] for line in lines}) == 1, "the nodes do not agree"
    assert lines[0].endswith(str(cluster.work))
    if scheduler == "slurm":
        [call] = cluster.calls("srun")
        options = ["--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--export=ALL", "--cpus-per-task=16"]
        assert call[:8] == [*options, "bash", str(REPOSITORY / "jobs/body/node.sh")]
    else:
        assert sorted(call[0] for call in cluster.calls("pbs_tmrsh")) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("code", [0, 1, 7, 139])
@pytest.mark.parametrize("kind", ["none", "slurm", "pbs"])
def test_the_worst_exit_code_of_any_node_is_the_jobs(kind: str, code: int, cluster: Cluster) -> None:
    environment = {
        "none": cluster.environment,
        "slurm": lambda: cluster.slurm("n1,n2"),
        "pbs": lambda: cluster.pbs("n1", "n2"),
    }[kind]()
    result = cluster.run(environment, "bash", "-c", f"exit $(({code} * ({kind != 'none':d} == SIBOL_JOB_NODE_RANK)))")
    assert result.returncode == code
    assert f"ends after 0 s with exit code {code}" in result.stderr or "exit code" in result.stderr


def test_nodes_that_wait_for_one_that_failed_are_ended(cluster: Cluster) -> None:
    environment = cluster.pbs("n1", "n2", SIBOL_JOB_PATIENCE_S="1")
    environment["CLUSTER_PATH"] = environment["PATH"]
    cluster.add("pbs_tmrsh", "if [[ $1 == n1 ]]; then exec sleep 60; fi\nexit 3")
    began_s = time.monotonic()
    result = cluster.run(environment, "true")
    assert result.returncode == 128 + signal.SIGTERM
    assert "node n2 failed with exit code 3" in result.stderr
    assert time.monotonic() - began_s < 30


def test_the_schedulers_warning_makes_a_stop_file_and_ends_nothing(cluster: Cluster) -> None:
    run = cluster.work / "a run"
    run.mkdir()
    environment = cluster.slurm(SIBOL_JOB_RUN_DIR="a run")
    job = cluster.start(
        environment, "bash", "-c", "touch begun; until [[ -e 'a run/STOP' ]]; do sleep 0.05; done; cat 'a run/STOP'; exit 5"
    )
    wait_for(cluster.work / "begun")
    job.send_signal(signal.SIGUSR1)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 5
    assert "requeue" in output.splitlines()


def test_being_told_to_end_twice_makes_one_request_that_a_later_warning_does_not_weaken(cluster: Cluster) -> None:
    run = cluster.work / "run"
    run.mkdir()
    script = """
    trap '' TERM; touch begun; until [[ -e go ]]; do sleep 0.05; done
    cat run/STOP; echo '{"step": 9, "first_step": 1}' >run/REQUEUE; exit 75
    """
    job = cluster.start(cluster.environment(SIBOL_JOB_RUN_DIR="run", SIBOL_JOB_MAX_HOPS="5"), "bash", "-c", script)
    wait_for(cluster.work / "begun")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
        job.send_signal(number)
        time.sleep(0.1)
    (cluster.work / "go").touch()
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 75
    assert output.count("asked to stop (stop)") == 1
    assert "stop" in output.splitlines() and "requeue" not in output.splitlines()
    assert "stopped at step 9 by a signal; not continued" in output


def test_a_command_without_a_run_is_ended_when_the_job_is(cluster: Cluster) -> None:
    job = cluster.start(cluster.environment(), "bash", "-c", "touch begun; exec sleep 60")
    wait_for(cluster.work / "begun")
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM, output


@pytest.mark.parametrize("settings", [{}, {"SIBOL_JOB_RUN_DIR": "run"}], ids=["no run", "run"])
def test_a_job_that_is_ended_before_its_command_starts_does_not_start_it(settings: dict[str, str], cluster: Cluster) -> None:
    environment = cluster.environment(SIBOL_JOB_MODULES="slow", **settings)
    environment["BASH_FUNC_module%%"] = "() { touch loading; until [[ -e go ]]; do sleep 0.05; done; }"
    job = cluster.start(environment, "touch", "started")
    wait_for(cluster.work / "loading")
    job.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    (cluster.work / "go").touch()
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM, output
    assert not (cluster.work / "started").exists()


def test_a_run_is_told_of_a_warning_that_came_before_it_started(cluster: Cluster) -> None:
    environment = cluster.environment(SIBOL_JOB_MODULES="slow", SIBOL_JOB_RUN_DIR="run")
    environment["BASH_FUNC_module%%"] = "() { kill -USR1 $$; }"
    result = cluster.run(environment, "bash", "-c", "cat run/STOP; touch run/DONE")
    assert result.stdout.splitlines()[:1] == ["requeue"], result.stderr
    assert result.returncode == 0 and not (cluster.work / "run" / "STOP").exists(), "it was for this job only"


def test_a_command_without_a_run_is_told_again_by_the_second_signal(cluster: Cluster) -> None:
    script = "trap 'echo told >>told' TERM; touch begun; until [[ $(wc -l <told) == 2 ]]; do sleep 0.05; done 2>/dev/null; exit 3"
    job = cluster.start(cluster.environment(), "bash", "-c", script)
    wait_for(cluster.work / "begun")
    job.send_signal(signal.SIGTERM)
    wait_for(cluster.work / "told")
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)
    assert job.returncode == 3


def test_pbs_nodes_get_what_a_container_would_but_no_secret_and_nothing_of_the_first_nodes_own(cluster: Cluster) -> None:
    secrets = cluster.folder / "secrets.env"
    secrets.write_text("HTTPS_PROXY=http://user:sesame@proxy\n", encoding="utf-8")
    secrets.chmod(0o600)
    given = {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0", "HF_HOME": "/x/hugging face", "WANDB_MODE": "offline", "ODD": "1"}
    own = {"CUDA_VISIBLE_DEVICES": "3", "SIBOL_JOB_SECRETS": str(secrets)}
    environment = cluster.pbs("n1", "n2", **given, **own, https_proxy="http://proxy")
    cluster.add("pbs_tmrsh", 'cp "$5" "../node file"')
    assert cluster.run(environment, "true").returncode == 0
    text = (cluster.folder / "node file").read_text()
    names = {line.partition("=")[0].removeprefix("export ") for line in text.splitlines() if line.startswith("export ")}
    assert {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "HF_HOME", "WANDB_MODE", "https_proxy", "PATH", "PBS_JOBID"} <= names
    assert not names & {"HTTPS_PROXY", "CUDA_VISIBLE_DEVICES", "TMPDIR", "TRITON_CACHE_DIR", "ODD"}
    assert "sesame" not in text


def test_pyxis_starts_its_nodes_inside_where_no_program_of_the_hosts_belongs(cluster: Cluster) -> None:
    project = cluster.folder / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in ("jobs", "containers"):
        (project / name).symlink_to(REPOSITORY / name)
    settings = {"SIBOL_PROJECT": str(project), "SIBOL_JOB_RUNTIME": "pyxis", "SIBOL_JOB_IMAGE": "registry#image"}
    result = cluster.run(cluster.slurm(PYTHONPATH="/host", **settings), "bash", "-c", 'echo "$PATH"; echo "$PYTHONPATH"')
    assert result.stdout.splitlines() == [cluster.path, str(project)], result.stderr
    bare = cluster.run(cluster.slurm(**{**settings, "SIBOL_JOB_RUNTIME": "none"}), "bash", "-c", 'echo "$PATH"')
    assert bare.stdout.startswith(f"{project}/.venv/bin:")


def test_a_signal_to_all_processes_of_a_node_reaches_the_command_and_not_the_shell_around_it(cluster: Cluster) -> None:
    environment = {**cluster.slurm("n1,n2"), "SLURM_NODEID": "1", "SIBOL_JOB_NODES": "2"}
    script = "trap 'exit 75' TERM; touch begun; while true; do sleep 0.05; done"
    node = subprocess.Popen(
        ["bash", str(REPOSITORY / "jobs/body/node.sh"), "bash", "-c", script], env=environment, cwd=cluster.work, start_new_session=True
    )
    wait_for(cluster.work / "begun")
    os.killpg(node.pid, signal.SIGTERM)
    assert node.wait(timeout=60) == 0, "75 on one node would make srun kill the others"


def shards(cluster: Cluster) -> list[str]:
    return sorted(path.name for path in cluster.work.glob("shard *"))


WRITE_SHARD = ("bash", "-c", 'touch "shard $2"', "bash")


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_an_element_of_an_array_does_its_share(scheduler: str, cluster: Cluster) -> None:
    index = {"slurm": "SLURM_ARRAY_TASK_ID", "pbs": "PBS_ARRAY_INDEX"}[scheduler]
    environment = getattr(cluster, scheduler)(SIBOL_JOB_SHARDS="20", **{index: "7"})
    result = cluster.run(environment, "bash", "-c", 'echo "$@"', "bash", "prepare")
    assert result.stdout == "prepare --shard 7/20\n", result.stderr


def test_a_single_share_needs_no_array(cluster: Cluster) -> None:
    assert cluster.run(cluster.pbs(SIBOL_JOB_SHARDS="1"), "echo").stdout == "--shard 1/1\n"


def test_without_a_scheduler_the_shares_are_done_one_after_the_other_until_one_fails(cluster: Cluster) -> None:
    command = ("bash", "-c", 'echo "$2"; [[ $2 != 3/4 ]]', "bash")
    result = cluster.run(cluster.environment(SIBOL_JOB_SHARDS="4"), *command)
    assert result.returncode == 1
    assert result.stdout.split() == ["1/4", "2/4", "3/4"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SIBOL_JOB_SHARDS": "20"}, "submit an array (sbatch --array=1-20"),
        ({"SIBOL_JOB_SHARDS": "20", "SLURM_ARRAY_TASK_ID": "21"}, "element 21 of an array, but the work is divided into 20"),
        ({"SIBOL_JOB_SHARDS": "20", "SLURM_ARRAY_TASK_ID": "0"}, "SIBOL_JOB_ARRAY_INDEX=0 is not a whole number of 1 or more"),
        ({"SIBOL_JOB_SHARDS": "all"}, "SIBOL_JOB_SHARDS=all is not a whole number"),
    ],
)
def test_an_array_that_does_not_fit_the_work_is_refused(settings: dict[str, str], message: str, cluster: Cluster) -> None:
    result = cluster.run(cluster.slurm(**settings), *WRITE_SHARD)
    assert result.returncode == 1
    assert message in result.stderr
    assert shards(cluster) == []
