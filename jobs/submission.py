"""Submit: check, render all scripts, make folders, then hand the jobs over one by one, noting each before the next."""

from __future__ import annotations

import shlex
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from jobs import scheduler
from jobs.check import check_jobs, check_mounts
from jobs.job import Job, require_single_lines
from jobs.local import run_jobs
from jobs.records import Submission, SubmittedJob, log_file, new_folder
from jobs.render import PROJECT, SUFFIXES, Container, Place, render
from jobs.site import Site
from jobs.states import refuse_unfinished
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import atomic_file

# What runs a container, what containers/build.sh builds for it, and where it puts that.
CONTAINER_RUNTIMES = {
    "apptainer": ("apptainer", "sibol.sif"),
    "enroot": ("enroot", "sibol.sqsh"),
    "pyxis": ("enroot", "sibol.sqsh"),
}
IMAGES = PROJECT / "containers"


@dataclass(frozen=True)
class Destination:
    """Where jobs go. `jobs_dir` takes scripts, logs and records."""

    site: Site
    jobs_dir: Path
    account: str | None
    container: Container


def check(jobs: Sequence[Job], destination: Destination) -> None:
    """All that can be known before anything is written. Raises ConfigError."""
    site, container = destination.site, destination.container
    check_jobs(jobs, site, destination.account)
    check_mounts((*site.mounts, *container.mounts), site.scheduler)
    check_image(container)
    if container.secrets:
        check_secrets(Path(container.secrets))
    scripts(jobs, destination, destination.jobs_dir.resolve())  # refuses what a directive cannot carry


def built_image(runtime: str) -> str | None:
    """The image that containers/build.sh built for a runtime; None where there is none, or no runtime is asked for by name."""
    _, name = CONTAINER_RUNTIMES.get(runtime, ("", ""))
    return str(IMAGES / name) if name and (IMAGES / name).exists() else None


def check_image(container: Container) -> None:
    """A container runtime has an image, and an image that is a file is there. Raises ConfigError."""
    image, runtime = container.image, container.runtime
    if runtime not in CONTAINER_RUNTIMES:
        return
    if not image:
        program, name = CONTAINER_RUNTIMES[runtime]
        raise ConfigError(
            f"Runtime {runtime} needs an image, and {IMAGES / name} does not exist. Build it (containers/build.sh {program}), pass "
            "--image FILE with another, or --runtime none."
        )
    require_single_lines("Image", image)
    if not (runtime == "pyxis" and "#" in image) and not Path(image).exists():
        raise ConfigError(f"Image {image} does not exist. Build it (see containers/), or pass --image with another.")


def check_secrets(path: Path) -> None:
    """The file of secrets is there and nobody else can read it. Its content is for the job alone. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"The file of secrets {path} does not exist. Write lines such as HF_TOKEN=... into it, and run: chmod 600 {path}")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"The file of secrets {path} can be read by others (mode {path.stat().st_mode & 0o777:03o}). Run: chmod 600 {path}"
        )


def scripts(jobs: Sequence[Job], destination: Destination, folder: Path) -> dict[str, str]:
    """The text of every job's script by job name, for scripts and logs in `folder`."""
    site, container = destination.site, destination.container
    texts = {}
    for job in jobs:
        place = Place(str(script_path(folder, job, site)), str(folder), str(PROJECT))
        texts[job.name] = render(replace(job, command=(program(container), *job.command[1:])), site, place, container)
    return texts


def program(container: Container) -> str:
    """What a job calls for `sibol`: without a container the one that submits it, which need not be on the PATH of a node."""
    own = Path(sys.executable).with_name("sibol")
    inside = container.runtime in CONTAINER_RUNTIMES or container.image
    return "sibol" if inside or not own.is_file() else str(own)


def script_path(folder: Path, job: Job, site: Site) -> Path:
    """Where a job's script lies."""
    return folder / f"{job.name}{SUFFIXES[site.scheduler]}"


def commands(jobs: Sequence[Job], destination: Destination, folder: Path) -> list[str]:
    """The submitting commands as one would type them; `<NAME>` stands for the id that the scheduler will give to that job."""
    site = destination.site
    lines = []
    for job in jobs:
        script = script_path(folder, job, site)
        after = [f"<{name}>" for name in job.after]
        argv = ["bash", str(script)]
        if site.scheduler != "none":
            argv = scheduler.submit_command(site.scheduler, job, script, destination.account, after)
        lines.append(shlex.join(argv))
    return lines


def submit(name: str, jobs: Sequence[Job], destination: Destination, say: Callable[[str], None]) -> int:
    """Submit jobs to the site under one name, or run them here. Returns the exit code: of the last job that ran here, else 0.

    Raises ConfigError or OutputExistsError before anything is written, SchedulerError when the scheduler refuses one (the earlier
    ones stay).
    """
    check(jobs, destination)
    refuse_unfinished(jobs, destination.jobs_dir.resolve())
    now = datetime.now().astimezone()
    folder = new_folder(destination.jobs_dir.resolve(), name, now)
    for job_name, text in scripts(jobs, destination, folder).items():
        with atomic_file(folder / f"{job_name}{SUFFIXES[destination.site.scheduler]}") as handle:
            handle.write(text)
    submission = _unsubmitted(jobs, destination, folder, now)
    submission.save()
    if destination.site.scheduler == "none":
        return run_jobs(submission, say)
    _hand_over(jobs, destination, submission, say)
    return 0


def _unsubmitted(jobs: Sequence[Job], destination: Destination, folder: Path, now: datetime) -> Submission:
    site = destination.site
    records = tuple(
        SubmittedJob(
            job.name,
            job.command,
            str(script_path(folder, job, site)),
            log_file(site.scheduler, folder, job, None),
            str(Path(job.run_dir).resolve()) if job.run_dir else None,
            job.shards,
        )
        for job in jobs
    )
    return Submission(folder, site.name, site.scheduler, now.isoformat(timespec="seconds"), str(Path.cwd()), records)


def _hand_over(jobs: Sequence[Job], destination: Destination, submission: Submission, say: Callable[[str], None]) -> None:
    site, ids = destination.site, dict[str, str]()
    for job, record in zip(jobs, submission.jobs, strict=True):
        after = [ids[name] for name in job.after]
        command = scheduler.submit_command(site.scheduler, job, Path(record.script), destination.account, after)
        try:
            ids[job.name] = scheduler.submit(command)
        except scheduler.SchedulerError as error:
            earlier = f" Submitted before it, and still there: {', '.join(ids.values())}." if ids else ""
            stop = f" Stop them with: {scheduler.cancel_command(site.scheduler, list(ids.values()))}" if ids else ""
            raise scheduler.SchedulerError(f"{job.name} was not submitted: {error}{earlier}{stop}") from None
        log = log_file(site.scheduler, submission.folder, job, ids[job.name])
        submission = submission.with_job(replace(record, id=ids[job.name], log=log))
        submission.save()
        waits = f" after {', '.join(job.after)}" if job.after else ""
        say(f"{job.name}: job {ids[job.name]}{f' of {job.shards} shards' if job.shards else ''}{waits}, log {log}")
    say(f"Follow: sibol jobs, and the logs in {submission.folder}")
    say(f"Stop:   {scheduler.cancel_command(site.scheduler, list(ids.values()))}")
