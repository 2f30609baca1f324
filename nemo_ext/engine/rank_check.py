"""Whether ranks can talk to each other on this machine, without Megatron: the first thing to rule out when a run hangs."""

from __future__ import annotations

import subprocess
import sys
import time

_PROGRAM = """
import datetime, torch, torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
total = torch.ones(1)
dist.all_reduce(total)
assert total.item() == 2, total
"""


def two_ranks_add_up() -> tuple[float, str]:
    """Start two gloo ranks with torchrun and let them all-reduce; returns the seconds it took and "" or what went wrong."""
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
        sys.executable,
        "-c",
        _PROGRAM,
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return time.monotonic() - began, "no answer within 120 s; check the host name and firewall of the loopback interface"
    lines = result.stderr.strip().splitlines()
    return time.monotonic() - began, "" if result.returncode == 0 else (lines[-1] if lines else f"exit code {result.returncode}")
