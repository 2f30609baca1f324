"""What work costs: CPU seconds of a fresh process and of the processes it starts, wall seconds, peak memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}  # so that processes alone make parallelism


@dataclass(frozen=True)
class Cost:
    """Of one piece of work. `worker_peak_bytes` is the largest of the processes it started (0 if none)."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    worker_peak_bytes: int
    result: Any = None


def measure(setup: Callable[..., Callable[[], Any]], *arguments: Any) -> Cost:
    """Cost of the work that `setup(*arguments)` returns, in a process of its own. Imports and loading belong to the setup."""
    os.environ.update(ONE_THREAD, PYTHONWARNINGS="ignore")  # the child reads these
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure_here, setup, arguments).result()


def _measure_here(setup: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> Cost:
    work = setup(*arguments)
    cpu_before, wall_before = _cpu_s(), time.monotonic()
    result = work()
    cpu_s, wall_s = _cpu_s() - cpu_before, time.monotonic() - wall_before
    own, workers = (resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Cost(cpu_s, wall_s, own, workers, result)


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
