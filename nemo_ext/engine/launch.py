"""Ranks: start them on this machine with torchrun, or join those that torchrun or srun already started. No torch here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from nemo_ext.common.processes import end_with_parent

FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STOP_SIGNAL = signal.SIGUSR1  # what a rank understands as: finish this step, save, leave
ERROR_FILE_VARIABLE = "SIBOL_ERROR_FILE"  # where rank 0 leaves the message of an error for the process that started the ranks
CONTINUE_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not finished, the same command continues


def joined_ranks(environment: Mapping[str, str]) -> int | None:
    """World size when this process is one of several ranks already (torchrun, or srun with one task per rank), else None."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return int(environment["WORLD_SIZE"])
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        return int(environment["SLURM_NTASKS"])
    return None


def rank_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The torchrun variables for this process: kept, derived from srun's, or those of a single rank."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return {"LOCAL_WORLD_SIZE": environment.get("LOCAL_WORLD_SIZE", environment["WORLD_SIZE"])}
    if joined_ranks(environment):
        tasks, nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", "1"))
        job = int(environment.get("SLURM_JOB_ID", "0"))
        return {
            "RANK": environment["SLURM_PROCID"],
            "WORLD_SIZE": environment["SLURM_NTASKS"],
            "LOCAL_RANK": environment["SLURM_LOCALID"],
            "LOCAL_WORLD_SIZE": str(tasks // nodes),
            "MASTER_ADDR": environment.get("MASTER_ADDR", first_host(environment.get("SLURM_STEP_NODELIST", "localhost"))),
            "MASTER_PORT": environment.get("MASTER_PORT", str(20000 + job % 20000)),
        }
    single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    return {**single, "MASTER_PORT": str(free_port())}


def first_host(node_list: str) -> str:
    """First host of a Slurm node list: `gpu[03-07,11]` -> `gpu03`, `a,b` -> `a`."""
    head, bracket, rest = node_list.partition("[")
    if not bracket or "," in head:
        return node_list.partition(",")[0]
    first = rest.partition("]")[0].partition(",")[0].partition("-")[0]
    return head + first


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rank_command(settings: Path, ranks: int) -> list[str]:
    """Command that runs the settings file on `ranks` local ranks."""
    worker = ["-m", "nemo_ext.engine.worker", str(settings)]
    if ranks == 1:
        return [sys.executable, *worker]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "--max-restarts=0"]
    return [sys.executable, *torchrun, *worker]


def threads_per_rank(requested: int | None, ranks: int) -> int:
    """CPU threads of one rank: as asked, else this process's cores divided by the local ranks."""
    return requested or max(1, len(os.sched_getaffinity(0)) // ranks)


def start_ranks(settings: Path, ranks: int, threads: int, error_file: Path) -> int:
    """Run a settings file on local ranks, pass signals on to them, and return the exit code (128 + n after signal n).

    torchrun answers SIGTERM by killing its ranks, so SIGTERM and SIGINT are turned into the ranks' stop signal: they
    finish their step, save and leave. A second one kills.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", ERROR_FILE_VARIABLE: str(error_file)}
    if os.environ.get("SIBOL_VERBOSE") != "1":
        environment.setdefault("PYTHONWARNINGS", "ignore")  # each rank would repeat what torch and NeMo warn of at import
    # Repository checkouts run without being installed: the ranks must find the same packages.
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in [_package_root(), environment.get("PYTHONPATH", "")] if entry)
    # A process group of its own, so that Ctrl-C reaches the ranks once, through us, and not twice.
    process = subprocess.Popen(rank_command(settings, ranks), env=environment, process_group=0, preexec_fn=end_with_parent)
    asked = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        asked += number != signal.SIGUSR1
        _signal_ranks(process.pid, signal.SIGKILL if asked > 1 else STOP_SIGNAL, ranks)

    previous = {number: signal.signal(number, forward) for number in FORWARDED_SIGNALS}
    try:
        code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signal_ranks(leader: int, number: signal.Signals, ranks: int) -> None:
    """Signal the ranks themselves, not torchrun, which would take it as an order to end them."""
    if number == signal.SIGKILL:
        os.killpg(leader, number)
        return
    for pid in [leader] if ranks == 1 else child_processes(leader):
        os.kill(pid, number)


def child_processes(parent: int) -> Sequence[int]:
    """Process ids of the direct children of `parent`, from /proc."""
    children: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        children += [int(pid) for pid in task.read_text().split()]
    return children


def _package_root() -> str:
    return str(Path(__file__).resolve().parents[2])
