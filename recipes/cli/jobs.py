"""`sibol jobs`: what was submitted from here, and where it stands."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from recipes.cli.submit import DEFAULT_JOBS_DIR, JobsDir


def jobs(
    jobs_dir: JobsDir = DEFAULT_JOBS_DIR,
    last: Annotated[int, typer.Option(help="So many submissions, the newest.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    sites: Annotated[bool, typer.Option("--sites", help="List the sites instead.")] = False,
) -> None:
    """List submitted jobs with their state."""
    from jobs.records import submissions
    from jobs.states import job_states

    if sites:
        _print_sites()
        return
    shown = submissions(jobs_dir)[-last:]
    states = job_states(shown)
    rows = [
        {
            "submitted_at": submission.submitted_at,
            "site": submission.site,
            "name": job.name,
            "id": job.id,
            "state": states[str(submission.folder), job.name],
            "log": job.log,
            "run_dir": job.run_dir,
            "folder": str(submission.folder),
        }
        for submission in shown
        for job in submission.jobs
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(f"No jobs in {jobs_dir}. `sibol submit` puts them there.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("submitted", "site", "job", "id", "state", "log", box=None)
    for row in rows:
        table.add_row(*(row[key] or "-" for key in ("submitted_at", "site", "name", "id", "state", "log")))
    Console().print(table)


def _print_sites() -> None:
    from rich.console import Console
    from rich.table import Table

    from jobs.site import load_site, site_names

    table = Table("site", "scheduler", "node", "runtime", "internet", "what it is", box=None)
    for name in site_names():
        site = load_site(name)
        gpus = f"{site.node.gpus} {site.node.gpu_model}" if site.node.gpus else "CPU"
        table.add_row(name, site.scheduler, gpus, site.runtime, "yes" if site.internet else "no", site.description)
    Console().print(table)
