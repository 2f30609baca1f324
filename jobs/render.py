"""Jobs as scripts: a shebang, directives, `export` lines and the one call of the job's body. All logic is in `jobs/body`.

Nothing of a user's reaches the shell unquoted, and nothing of a secret's reaches a script at all: secrets are a path here.
"""

from __future__ import annotations

import functools
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import jinja2

from jobs.job import Job, request_of, require_single_lines, warning_s
from jobs.site import Site, format_walltime
from nemo_ext.common.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[1]
# Variables that one may set when submitting a script that was not made for one's own installation.
OPEN = ("SIBOL_JOB_RUNTIME", "SIBOL_JOB_IMAGE", "SIBOL_JOB_MODULES", "SIBOL_JOB_SHARDS", "SIBOL_JOB_MAX_HOPS")
SUFFIXES = {"slurm": ".sbatch", "pbs": ".pbs", "none": ".sh"}


@dataclass(frozen=True)
class Place:
    """Where a script and its logs lie. `project` None: the folder that the script is submitted from."""

    script: str
    logs: str
    project: str | None = None


@dataclass(frozen=True)
class Container:
    """What the job runs in, beyond the site's facts."""

    runtime: str
    image: str | None = None
    mounts: tuple[str, ...] = ()
    secrets: str | None = None


def render(job: Job, site: Site, place: Place, container: Container) -> str:
    """The text of the job's script for the site's scheduler. Raises ConfigError for what a directive cannot carry."""
    template = _environment().get_template(f"{site.scheduler}.j2")
    return template.render(
        job=job,
        site=site,
        place=place,
        request=request_of(job, site),
        walltime=format_walltime(job.walltime_s),
        warning_s=warning_s(job),
        select=pbs_select(job, site),
        log=log_path(site.scheduler, place.logs),
        exports=exports(job, site, container),
        open_names=() if place.project else OPEN,
    )


def exports(job: Job, site: Site, container: Container) -> dict[str, str]:
    """The variables that tell the body what the job is, apart from where the project and the script lie."""
    request = request_of(job, site)
    known: dict[str, object] = {
        "SIBOL_JOB_NAME": job.name,
        "SIBOL_JOB_SCHEDULER": site.scheduler,
        "SIBOL_JOB_WALLTIME_S": job.walltime_s,
        "SIBOL_JOB_SITE": site.name,
        "SIBOL_JOB_RUNTIME": container.runtime,
        "SIBOL_JOB_IMAGE": container.image,
        "SIBOL_JOB_MODULES": " ".join(site.modules) or None,
        "SIBOL_JOB_NODES": job.nodes,
        "SIBOL_JOB_RANKS_PER_NODE": job.ranks_per_node,
        "SIBOL_JOB_GPUS_PER_NODE": request.gpus,
        "SIBOL_JOB_MOUNTS": "\n".join((*site.mounts, *container.mounts)) or None,
        "SIBOL_JOB_INTERNET": str(site.internet).lower(),
        "SIBOL_JOB_SHARDS": job.shards,
        "SIBOL_JOB_RUN_DIR": job.run_dir,
        "SIBOL_JOB_MAX_HOPS": job.max_hops,
        "SIBOL_JOB_HOP": job.hop or None,
        "SIBOL_JOB_SECRETS": container.secrets,
        "SIBOL_JOB_OFFLINE_CACHE": site.offline_cache,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def quoted(value: object) -> str:
    """A value as one word of the shell. The only line breaks are those between mounts."""
    return shlex.quote(str(value))


def directive(value: object) -> str:
    """A value that stands in a directive as it is. Raises ConfigError for characters that schedulers read otherwise."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_.,:=@/+\[\]-]+", text):
        raise ConfigError(f"{text!r} cannot stand in a job script's directive. Use letters, digits and . , : = @ / + - _ only.")
    return text


def line(value: str) -> str:
    """A site's own directive, as it stands. Raises ConfigError when it is more than one line."""
    require_single_lines("Directive", value)
    return value


def pbs_select(job: Job, site: Site) -> str:
    """What a PBS job asks for: alike chunks, one per node and one launcher in each."""
    request = request_of(job, site)
    memory_gib = site.node.memory_gib if request.whole_node else request.memory_gib
    parts = {
        "ncpus": request.cores,
        "mpiprocs": 1,
        "ngpus": request.gpus or None,
        "mem": f"{math.floor(memory_gib)}gb" if memory_gib else None,
    }
    return ":".join([f"select={job.nodes}", *(f"{name}={value}" for name, value in parts.items() if value is not None)])


def log_path(scheduler: str, folder: str) -> str:
    """The log's path as the value of a directive. Raises ConfigError for a folder that the scheduler would read otherwise."""
    require_single_lines("Log folder", folder)
    if scheduler == "pbs":  # it splits at blanks and commas, and takes what stands before a colon for a host
        if not re.fullmatch(r"[\w./+@=-]+", folder):
            raise ConfigError(f"Log folder {folder!r} holds characters that PBS cannot take there. Choose another --jobs-dir.")
        return f"{folder}/"
    if set(folder) & set('%\\"'):
        raise ConfigError(f'Log folder {folder!r} holds one of % \\ ", which Slurm reads otherwise. Choose another --jobs-dir.')
    path = f"{folder}/%x-%j.out"
    return f'"{path}"' if re.search(r"[^\w./%-]", path) else path


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell scripts, not pages; every value goes through a filter below
    )
    environment.filters.update(sh=quoted, directive=directive, line=line)
    return environment
