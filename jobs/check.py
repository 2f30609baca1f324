"""What a site refuses, found before anything is submitted: PBS would queue such jobs for ever, Slurm fail them at the start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jobs.job import Job, request_of, require_single_lines
from jobs.site import Site, format_walltime, parse_walltime
from nemo_ext.common.errors import ConfigError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
QUEUE = re.compile(r"[A-Za-z0-9_][\w.@,-]*")


def check_jobs(jobs: Sequence[Job], site: Site, account: str | None) -> None:
    """Check jobs that are submitted together. Raises ConfigError that names the value, the limit and the remedy."""
    check_account(site, account)
    for job in jobs:
        check_job(job, site)
    elements = sum(job.shards or 1 for job in jobs)
    if site.limits.jobs is not None and elements > site.limits.jobs:
        raise ConfigError(
            f"These are {elements} jobs, each shard counting as one, but {site.name} takes {site.limits.jobs} of one user. Lower --shards."
        )
    names = [job.name for job in jobs]
    if len(set(names)) != len(names):
        raise ConfigError(f"Two jobs of one submission have the same name: {', '.join(names)}. Names tell their scripts apart.")


def check_account(site: Site, account: str | None) -> None:
    """Check to whom the time is charged. Raises ConfigError."""
    if account is None:
        if site.account.required:
            raise ConfigError(f"{site.name} wants an account. Pass --account {site.account.example or 'NAME'}, or set SIBOL_ACCOUNT.")
        return
    if not re.fullmatch(site.account.pattern, account):
        example = f", such as {site.account.example}" if site.account.example else ""
        raise ConfigError(f"Account {account!r} is none of {site.name}: expected a name like {site.account.pattern}{example}.")


def check_job(job: Job, site: Site) -> None:
    """Check one job. Raises ConfigError."""
    require_single_lines("Job name", job.name)
    require_single_lines("Argument", job.command)
    require_single_lines("Run folder", job.run_dir)
    if not NAME.fullmatch(job.name) or len(job.name) > site.limits.name_length:
        raise ConfigError(
            f"Job name {job.name!r} does not do: letters, digits, '_', '-' and '.', a letter first, at most {site.limits.name_length} "
            "characters. Pass --name."
        )
    if not job.command:
        raise ConfigError(f"Job {job.name} has no command.")
    _check_time(job, site)
    _check_size(job, site)


def _check_time(job: Job, site: Site) -> None:
    shortest_s, longest_s = parse_walltime(site.limits.shortest_walltime), site.longest_walltime_s
    if not max(1, shortest_s) <= job.walltime_s <= longest_s:
        raise ConfigError(
            f"Walltime {format_walltime(job.walltime_s)} of {job.name}: {site.name} takes jobs from {format_walltime(shortest_s)} to "
            f"{format_walltime(longest_s)}. Choose --time within, and --chain N for a run that takes longer."
        )


def _check_size(job: Job, site: Site) -> None:
    node, request = site.node, request_of(job, site)
    if site.scheduler == "none" and job.nodes > 1:
        raise ConfigError(f"{job.name} asks for {job.nodes} nodes, but {site.name} is one machine. Leave out --nodes.")
    limits = [
        ("nodes", job.nodes, node.count, "--nodes"),
        ("GPUs per node", request.gpus, node.gpus, "--gpus-per-node"),
        ("cores per node", request.cores, node.cores, "--cores"),
        ("GiB of memory per node", request.memory_gib, node.memory_gib, "--memory"),
    ]
    for what, wanted, most, option in limits:
        if wanted is not None and most is not None and wanted > most:
            raise ConfigError(f"{job.name} asks for {wanted:g} {what}, but {site.name} has {most:g}. Lower {option}.")
    for what, number in (("nodes", job.nodes), ("ranks per node", job.ranks_per_node), ("shards", job.shards), ("hops", job.max_hops)):
        if number is not None and number < 1:
            raise ConfigError(f"{job.name} asks for {number} {what}. Expected at least 1.")


def check_mounts(mounts: Sequence[str], scheduler: str) -> None:
    """Check SRC:DST[:ro]. Sources must be there now where jobs run on this machine. Raises ConfigError."""
    for mount in mounts:
        require_single_lines("Mount", mount)
        source, target, *mode = mount.split(":") if ":" in mount else ("", "")
        if not source.startswith("/") or not target.startswith("/") or mode not in ([], ["ro"], ["rw"]):
            raise ConfigError(
                f"Mount {mount!r} is not understood. Write SRC:DST or SRC:DST:ro, both absolute and without a colon of their own."
            )
        if scheduler == "none" and not Path(source).exists():
            raise ConfigError(f"Mount {mount!r}: {source} does not exist. Check the path.")
