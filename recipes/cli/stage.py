"""`sibol stage`: fetch models and datasets before a job that has no internet needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045  typer reads these annotations at run time


def stage(
    repos: Annotated[list[str], typer.Argument(help="Repositories of the Hugging Face Hub.", metavar="OWNER/NAME[@REVISION]...")],
    cache: Annotated[
        Optional[Path], typer.Option(help="Hugging Face cache to fill: `offline_cache` of the site, HF_HOME of a job.", metavar="DIR")
    ] = None,
    to: Annotated[Optional[Path], typer.Option(help="Instead: a plain folder, such as model.init_from names.", metavar="DIR")] = None,
    dataset: Annotated[bool, typer.Option("--dataset", help="They are datasets, not models.")] = False,
    skip: Annotated[Optional[list[str]], typer.Option(help="Files to leave out; may be repeated.", metavar="PATTERN")] = None,
) -> None:
    """Fetch repositories where there is internet, for jobs that run where there is none."""
    from data_tools.stage import stage as run_stage
    from nemo_ext.common.errors import ConfigError

    if to is not None and len(repos) > 1:
        raise ConfigError(f"--to {to} takes one repository, {len(repos)} are named. Run the command once for each.")
    for repo in repos:
        staged = run_stage(repo, "dataset" if dataset else "model", cache, to, skip or [])
        typer.echo(f"{staged.repo} at {staged.commit}: {staged.files} files, {staged.bytes / 1e6:,.1f} MB -> {staged.folder}")
    if cache is not None:
        typer.echo(f"Jobs find them with `offline_cache: {cache.resolve()}` in the site's file.")
