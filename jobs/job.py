"""A job: a command with what it needs from a site, before any scheduler has a word in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.site import Site
from nemo_ext.common.errors import ConfigError

WARNING_S = 600  # Slurm's early signal comes this long before the end of a long job; it may come 60 s earlier than asked


@dataclass(frozen=True)
class Job:
    """What to run. `command` is argv; `after` names the jobs of the same submission that must have succeeded."""

    name: str
    command: tuple[str, ...]
    walltime_s: int
    nodes: int = 1
    gpus_per_node: int = 0
    ranks_per_node: int = 1
    cores: int | None = None  # per node; None: as the site's facts suggest
    memory_gib: float | None = None  # per node; None: as the site's facts suggest
    shards: int | None = None  # elements of an array job
    run_dir: str | None = None  # run folder of a training job: it saves and may continue
    max_hops: int | None = None  # how often a training job that ran out of time is continued by itself
    hop: int = 0  # which continuation this one is, where all of them are submitted beforehand
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a job asks of one node. `memory_gib` None: all of it."""

    gpus: int
    cores: int | None
    memory_gib: float | None
    whole_node: bool


def request_of(job: Job, site: Site) -> Request:
    """Cores and memory in proportion to the GPUs, or as the job says. A whole node is asked for as such: it starts sooner."""
    node = site.node
    whole = node.gpus > 0 and job.gpus_per_node == node.gpus and job.cores is None and job.memory_gib is None
    if whole:
        return Request(job.gpus_per_node, node.cores, None, True)
    if job.gpus_per_node:
        share = job.gpus_per_node / node.gpus if node.gpus else 1.0
        even = math.floor(node.cores * share) if node.cores else None
        cores = job.gpus_per_node * node.cores_per_gpu if node.cores_per_gpu else even
        memory_gib = math.floor(node.memory_gib * share) if node.memory_gib else None
    else:
        cores = cpu_job_cores(site)
        memory_gib = math.floor(min(site.cpu_jobs.memory_gib, node.memory_gib or site.cpu_jobs.memory_gib))
    return Request(job.gpus_per_node, job.cores or cores, job.memory_gib or memory_gib, False)


def cpu_job_cores(site: Site) -> int:
    """Cores that a job without GPUs asks for, unless told otherwise."""
    return min(site.cpu_jobs.cores, site.node.cores or site.cpu_jobs.cores)


def warning_s(job: Job) -> int:
    """How long before its end a training job is told so, should it not have looked at the clock itself."""
    return min(WARNING_S, job.walltime_s // 10)


def require_single_lines(what: str, values: object) -> None:
    """Raise ConfigError when a value holds a newline or another control character, which no script line can carry."""
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if isinstance(value, str) and any(character < " " or character == "\x7f" for character in value):
            raise ConfigError(f"{what} {value!r} holds a line break or another control character. Use a name without.")
