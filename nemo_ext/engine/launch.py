"""Ranks: start them on this machine, this machine being one of several or not, or join those that are there. No torch here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nemo_ext.common.errors import ConfigError
from nemo_ext.common.processes import end_with_parent

FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STOP_SIGNAL = signal.SIGUSR1  # what a rank understands as: finish this step, save, leave
ERROR_FILE_VARIABLE = "SIBOL_ERROR_FILE"  # where rank 0 leaves the message of an error for the process that started the ranks
CONTINUE_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not finished, the same command continues
SAME_REQUEST_S = 2.0  # schedulers signal every process of a job, so one request to stop may arrive more than once


@dataclass(frozen=True)
class Nodes:
    """The machines of a run, of which this process is on one: how many, which, how many ranks on each, where they meet."""

    count: int = 1
    rank: int = 0
    ranks_per_node: int | None = None
    master: str = ""
    port: int = 0


def job_nodes(environment: Mapping[str, str]) -> Nodes:
    """The nodes of the job that this process runs in, from what jobs/body exports; one node where there is no job.

    Raises ConfigError when several nodes are named, but not where their ranks meet.
    """
    prefix = "SIBOL_JOB_"

    def number(name: str) -> int | None:
        text = environment.get(prefix + name, "")
        if text and not text.isdecimal():
            raise ConfigError(f"{prefix}{name}={text!r} is no whole number. Unset it, or leave it to `sibol submit`.")
        return int(text) if text else None

    count, rank, port = number("NODES") or 1, number("NODE_RANK"), number("MASTER_PORT")
    if count == 1:
        return Nodes(ranks_per_node=number("RANKS_PER_NODE"))
    master = environment.get(prefix + "MASTER_ADDR", "")
    if rank is None or not port or not master:
        raise ConfigError(
            f"{prefix}NODES={count}, but {prefix}NODE_RANK, {prefix}MASTER_ADDR and {prefix}MASTER_PORT are not all set. "
            "Set them on every node, or let `sibol submit --nodes` do it."
        )
    return Nodes(count, rank, number("RANKS_PER_NODE"), master, port)


def joined_ranks(environment: Mapping[str, str]) -> int | None:
    """World size when this process is one of several ranks already (torchrun, or srun with one task per rank), else None."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return int(environment["WORLD_SIZE"])
    if environment.get("SIBOL_JOB_NODES"):
        return None  # in our own jobs, srun starts one launcher per node
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


def rank_command(settings: Path, ranks: int, nodes: Nodes = Nodes()) -> list[str]:
    """Command that runs the settings file on `ranks` local ranks, beside those of the other nodes."""
    worker = ["-m", "nemo_ext.engine.worker", str(settings)]
    if ranks == 1 and nodes.count == 1:
        return [sys.executable, *worker]
    # Static: with torchrun's other rendezvous, ranks are dealt out in order of arrival, not by node.
    meeting = [f"--nnodes={nodes.count}", f"--node-rank={nodes.rank}", f"--master-addr={nodes.master}", f"--master-port={nodes.port}"]
    torchrun = ["-m", "torch.distributed.run", *(meeting if nodes.count > 1 else ["--standalone"])]
    return [sys.executable, *torchrun, f"--nproc-per-node={ranks}", "--max-restarts=0", *worker]


def threads_per_rank(requested: int | None, ranks: int) -> int:
    """CPU threads of one rank: as asked, else this process's cores divided by the local ranks."""
    return requested or max(1, len(os.sched_getaffinity(0)) // ranks)


def start_ranks(settings: Path, ranks: int, threads: int, error_file: Path, nodes: Nodes = Nodes()) -> int:
    """Run a settings file on local ranks, pass signals on to them, and return the exit code (128 + n after signal n).

    torchrun answers SIGTERM by killing its ranks, so SIGTERM and SIGINT are turned into the ranks' stop signal: they
    finish their step, save and leave. A second one kills, unless it comes so soon that it is the same request.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", ERROR_FILE_VARIABLE: str(error_file)}
    if os.environ.get("SIBOL_VERBOSE") != "1":
        environment.setdefault("PYTHONWARNINGS", "ignore")  # each rank would repeat what torch and NeMo warn of at import
    # Repository checkouts run without being installed: the ranks must find the same packages.
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in [_package_root(), environment.get("PYTHONPATH", "")] if entry)
    # A process group of its own, so that Ctrl-C reaches the ranks once, through us, and not twice.
    process = subprocess.Popen(rank_command(settings, ranks, nodes), env=environment, process_group=0, preexec_fn=end_with_parent)
    alone = ranks == 1 and nodes.count == 1
    asked_s: float | None = None

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked_s
        del frame
        again = asked_s is not None and time.monotonic() - asked_s > SAME_REQUEST_S
        if asked_s is None and number != signal.SIGUSR1:
            asked_s = time.monotonic()
        _signal_ranks(process.pid, signal.SIGKILL if again and number != signal.SIGUSR1 else STOP_SIGNAL, alone)

    previous = {number: signal.signal(number, forward) for number in FORWARDED_SIGNALS}
    try:
        code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signal_ranks(leader: int, number: signal.Signals, alone: bool) -> None:
    """Signal the ranks themselves, not torchrun, which would take it as an order to end them."""
    if number == signal.SIGKILL:
        send, targets = os.killpg, [leader]
    else:
        send, targets = os.kill, [leader] if alone else [*child_processes(leader)]
    for target in targets:
        with suppress(ProcessLookupError):  # ended just now
            send(target, number)


def child_processes(parent: int) -> Sequence[int]:
    """Process ids of the direct children of `parent`, from /proc."""
    children: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the task ended just now
            children += [int(pid) for pid in task.read_text().split()]
    return children


def _package_root() -> str:
    return str(Path(__file__).resolve().parents[2])
