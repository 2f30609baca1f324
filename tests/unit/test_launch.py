"""Ranks are found where torchrun or srun started them, and started where nobody did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_ext.common.errors import ConfigError
from nemo_ext.engine import launch

SRUN = {
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "41",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_inside_torchrun_the_ranks_are_joined() -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    assert launch.joined_ranks(environment) == 4
    assert launch.rank_environment(environment) == {"LOCAL_WORLD_SIZE": "2"}


def test_inside_srun_the_torchrun_variables_are_derived() -> None:
    assert launch.joined_ranks(SRUN) == 8
    assert launch.rank_environment(SRUN) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "20041",
    }


def test_a_batch_script_that_is_no_step_starts_its_own_ranks() -> None:
    assert launch.joined_ranks({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None
    assert launch.joined_ranks({}) is None


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu[03-07,11]", "gpu03"), ("a,b", "a"), ("node1", "node1"), ("a1,b[2-3]", "a1"), ("n[1,4]", "n1")]
)
def test_the_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert launch.first_host(nodes) == first


def test_one_rank_runs_without_torchrun_and_several_with() -> None:
    assert "torch.distributed.run" not in launch.rank_command(Path("s.yaml"), 1)
    assert "--nproc-per-node=3" in launch.rank_command(Path("s.yaml"), 3)


def test_threads_are_the_cores_divided_by_the_ranks_unless_asked_for() -> None:
    cores = len(os.sched_getaffinity(0))
    assert launch.threads_per_rank(None, 1) == cores
    assert launch.threads_per_rank(None, 10_000) == 1
    assert launch.threads_per_rank(3, 2) == 3


def test_a_job_of_several_nodes_starts_its_share_of_the_ranks_where_the_others_meet_them() -> None:
    environment = {
        "SIBOL_JOB_NODES": "2",
        "SIBOL_JOB_NODE_RANK": "1",
        "SIBOL_JOB_RANKS_PER_NODE": "4",
        "SIBOL_JOB_MASTER_ADDR": "gpu07",
        "SIBOL_JOB_MASTER_PORT": "20041",
    }
    nodes = launch.job_nodes(environment)
    assert nodes == launch.Nodes(count=2, rank=1, ranks_per_node=4, master="gpu07", port=20041)
    command = launch.rank_command(Path("s.yaml"), 4, nodes)
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=gpu07", "--master-port=20041", "--nproc-per-node=4"} <= set(command)
    assert "--standalone" not in command
    assert launch.joined_ranks({**SRUN, **environment}) is None  # srun's tasks are launchers here, not ranks


def test_one_rank_on_each_of_several_nodes_meets_the_others() -> None:
    nodes = launch.Nodes(count=3, rank=0, master="a", port=20001)
    assert "--nnodes=3" in launch.rank_command(Path("s.yaml"), 1, nodes)


def test_without_a_job_there_is_one_node_and_half_a_job_is_refused() -> None:
    assert launch.job_nodes({}) == launch.Nodes()
    assert launch.job_nodes({"SIBOL_JOB_NODES": "1", "SIBOL_JOB_RANKS_PER_NODE": "8"}).ranks_per_node == 8
    with pytest.raises(ConfigError, match="SIBOL_JOB_MASTER_PORT"):
        launch.job_nodes({"SIBOL_JOB_NODES": "2", "SIBOL_JOB_NODE_RANK": "0", "SIBOL_JOB_MASTER_ADDR": "a"})
    with pytest.raises(ConfigError, match="no whole number"):
        launch.job_nodes({"SIBOL_JOB_NODES": "two"})


PROGRAM = """
import signal, sys, time
sys.path.insert(0, {root!r})
from nemo_ext.engine import launch
child = "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *a: sys.exit(9)); print('ready', flush=True); time.sleep(60)"
launch.rank_command = lambda settings, ranks, nodes: [sys.executable, "-c", child]
print("code", launch.start_ranks(None, 1, 1, None), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_stop_signal_reaches_the_rank_as_a_request_to_save_and_leave(number: signal.Signals) -> None:
    root = str(Path(launch.__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(root=root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.read() == "code 9\n"
    assert process.wait() == 0


def test_a_request_to_stop_that_arrives_twice_does_not_kill_and_one_that_is_repeated_later_does() -> None:
    root = str(Path(launch.__file__).parents[2])
    program = PROGRAM.replace("sys.exit(9)", "time.sleep(3) or sys.exit(9)").replace(
        "launch.rank_command =", "launch.SAME_REQUEST_S = {patience}; launch.rank_command ="
    )
    for patience, pause_s, code in ((60.0, 0.2, 9), (0.1, 0.5, 128 + signal.SIGKILL)):
        text = program.format(root=root, patience=patience)
        process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(pause_s)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == f"code {code}\n"
        process.wait()


def test_ranks_do_not_outlive_a_launcher_that_was_killed() -> None:
    root = str(Path(launch.__file__).parents[2])
    program = PROGRAM.replace("time.sleep(60)", "print(__import__('os').getpid(), flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", program.format(root=root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    rank = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{rank}").exists() and _state(rank) != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{rank}").exists() or _state(rank) == "Z"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize("number", [launch.STOP_SIGNAL, signal.SIGKILL])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "torchrun"])
def test_ranks_that_have_just_ended_need_no_signal(number: signal.Signals, alone: bool) -> None:
    process = subprocess.Popen(["true"], process_group=0)
    process.wait()
    launch._signal_ranks(process.pid, number, alone)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_rank_that_ends_while_the_others_are_signalled_does_not_spare_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, running = subprocess.Popen(["true"]), subprocess.Popen(["sleep", "60"])
    ended.wait()
    monkeypatch.setattr(launch, "child_processes", lambda leader: [ended.pid, running.pid])
    launch._signal_ranks(os.getpid(), signal.SIGTERM, alone=False)
    assert running.wait(timeout=30) == -signal.SIGTERM
