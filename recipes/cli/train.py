"""`sibol train`: checks a run in this process, then starts ranks or joins those that are already there."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

from recipes.cli.show import Overrides, RecipeName


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    ranks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Local ranks to start (default: those of the job, else tp x pp x cp); inside torchrun or srun the ranks are those "
            "already there.",
            min=1,
        ),
    ] = None,
    resume: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="auto: continue from the newest complete checkpoint; must: insist on one; never: refuse one."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would run, and leave.")] = False,
) -> None:
    """Train or continue a run. Exit code 0: finished; 75: stopped early with a checkpoint, the same command continues."""
    from nemo_ext.config import apply_overrides
    from nemo_ext.engine.launch import job_nodes, joined_ranks
    from nemo_ext.engine.local_run import describe, run_locally
    from nemo_ext.engine.resolve import resolve
    from recipes import load_recipe

    config = apply_overrides(load_recipe(recipe), [*(overrides or []), *([f"checkpoint.resume={resume}"] if resume else [])])
    joined = joined_ranks(os.environ)
    parallel = config.parallel
    nodes = job_nodes(os.environ)
    local = ranks or nodes.ranks_per_node or max(1, parallel.tp * parallel.pp * parallel.cp // nodes.count)
    world = joined or local * nodes.count
    if dry_run or joined is None or os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "0":
        run = resolve(config, world)
        if nodes.rank == 0:
            typer.echo(describe(run), err=True)
    if dry_run:
        return
    if joined is not None:
        from nemo_ext.engine.worker import run_rank

        raise typer.Exit(run_rank(config))
    raise typer.Exit(run_locally(run, nodes))
