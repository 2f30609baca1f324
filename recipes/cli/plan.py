"""`sibol plan`: what a run needs at a site, before a job is submitted: memory, time, GPU-hours, money, storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from recipes.cli.show import Overrides, RecipeName

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.plan.estimate import Plan
    from jobs.plan.search import Found

GIB, GB, HOUR_S = 2**30, 1e9, 3600
LAYOUTS_SHOWN = 10


def complete_site(incomplete: str) -> list[str]:
    """Shell completion of a site's name."""
    from jobs.site import site_names

    return [name for name in site_names() if name.startswith(incomplete)]


def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    site: Annotated[
        str, typer.Option(help="Where: a name of jobs/sites, or your own FILE.yaml.", envvar="SIBOL_SITE", autocompletion=complete_site)
    ] = "local",
    nodes: Annotated[Optional[int], typer.Option(help="Nodes (default: the fewest that hold the model once).", min=1)] = None,  # noqa: UP045
    gpus_per_node: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="GPUs of each node (default: all, or as few as hold the model once).", min=1),
    ] = None,
    time: Annotated[Optional[str], typer.Option(help="Walltime of one job, 24:00:00 (default: the longest of the site).")] = None,  # noqa: UP045
    mfu: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Model FLOP utilisation of the whole run, 0.35 (default: estimated from the layout).", min=0.01, max=1.0),
    ] = None,
    tokens_per_s: Annotated[Optional[float], typer.Option(help="Speed that a short run of this layout measured.", min=0.001)] = None,  # noqa: UP045
    price: Annotated[Optional[float], typer.Option(help="US dollars for one GPU-hour (default: the site's).", min=0)] = None,  # noqa: UP045
    search: Annotated[bool, typer.Option("--search", help="Try layouts on these GPUs and rank those that fit.")] = False,
    request: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Draft a resource request with these figures into this file (Markdown).", metavar="FILE.md"),
    ] = None,
    then: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A recipe that follows, for the request; may be repeated.", metavar="RECIPE"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the request of an earlier time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say what a run needs at a site. Exit code 1: it does not fit, and the nearest layout that does is named."""
    from jobs.plan.duration import Stated
    from jobs.plan.estimate import make_plan
    from jobs.plan.resources import resources
    from jobs.plan.search import nearest_fitting
    from jobs.plan.search import search as search_layouts
    from jobs.site import load_site, parse_walltime
    from nemo_ext.config import apply_overrides
    from recipes import load_recipe

    place, walltime_s, stated = load_site(site), parse_walltime(time) if time else None, Stated(mfu=mfu, tokens_per_s=tokens_per_s)

    def planned_run(name: str, changes: list[str]) -> Plan:
        config = apply_overrides(load_recipe(name), changes)
        return make_plan(config, resources(config, place, nodes, gpus_per_node, walltime_s, price), stated)

    planned = planned_run(recipe, overrides or [])
    found = search_layouts(planned, stated) if search else []
    nearest = nearest_fitting(planned, stated) if planned.problems and planned.asked.gpus else None
    if as_json:
        _print_json(planned, found, nearest)
    else:
        _print_plan(planned, found, nearest)
    if request is not None:
        _write_request(request, {recipe: planned, **{name: planned_run(name, []) for name in then or []}}, overwrite)
    if planned.problems:
        raise typer.Exit(1)


def _write_request(path: Path, plans: dict[str, Plan], overwrite: bool) -> None:
    from jobs.plan.request import Stage, write_request
    from recipes import RECIPES, describe

    stages = [Stage(name, describe(name) if name in RECIPES else plan.run, plan) for name, plan in plans.items()]
    write_request(path, stages, overwrite)
    typer.echo(f"request written to {path}", err=True)


def _print_json(planned: Plan, found: list[Found], nearest: Found | None) -> None:
    import json

    record = planned.as_json()
    record["layouts"] = [{"changes": list(layout.changes), **layout.plan.as_json()} for layout in found]
    record["nearest"] = {"changes": list(nearest.changes), **nearest.plan.as_json()} if nearest else None
    typer.echo(json.dumps(record, indent=2))


def _print_plan(planned: Plan, found: list[Found], nearest: Found | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    asked, architecture = planned.asked, planned.architecture
    on = f"{asked.gpus} {asked.site.node.gpu_model} on {asked.nodes} node(s)" if asked.gpus else f"{asked.ranks} CPU rank(s)"
    model = f"{architecture.parameters / 1e6:,.1f} million parameters of {architecture.family}"
    console.print(escape(f"{planned.run}: {model}, {on}, site {asked.site.name}"))
    _print_memory(console, planned)
    _print_costs(console, planned)
    if found:
        _print_layouts(console, found)
    for note in planned.notes:
        console.print(escape(f"note: {note}"))
    for problem in planned.problems:
        console.print(escape(f"does not fit: {problem}"))
    if nearest:
        changes = " ".join(nearest.changes) or "no setting changed"
        memory = f"{nearest.plan.fullest.peak_bytes / GIB:.1f} GiB"
        console.print(escape(f"nearest that fits: {changes}, --nodes {nearest.plan.asked.nodes}, {memory} on the fullest GPU"))
    elif planned.problems and asked.gpus:
        console.print(escape(f"no layout fits on the {asked.site.node.count} nodes of {asked.site.name}"))


def _print_memory(console: Console, planned: Plan) -> None:
    from rich.table import Table

    layout = planned.layout
    title = (
        f"GiB on each rank (tp {layout.tp}, pp {layout.pp}, cp {layout.cp}, dp {layout.dp}, "
        f"micro batch {layout.micro_batch_size}, recompute {layout.recompute})"
    )
    names = ("weights", "gradients", "optimizer", "activations", "loss", "working", "peak")
    table = Table("stage", *names, title=title, title_justify="left", box=None)
    shown = {0: planned.memory[0], planned.fullest.stage: planned.fullest, layout.pp - 1: planned.memory[-1]}
    for stage, memory in sorted(shown.items()):
        table.add_row(str(stage), *(f"{getattr(memory, f'{name}_bytes') / GIB:.2f}" for name in names))
    console.print(table)


def _print_costs(console: Console, planned: Plan) -> None:
    from rich.table import Table

    table = Table("what", "how much", "", box=None, show_header=False)
    for row in [*_time_rows(planned), *_storage_rows(planned)]:
        table.add_row(*row)
    console.print(table)


def _time_rows(planned: Plan) -> list[tuple[str, str, str]]:
    speed, time = planned.speed, planned.duration
    if speed is None or time is None:
        return []
    steps = planned.config.train.max_steps
    rows = [
        ("speed", f"{speed.tokens_per_s:,.0f} tokens/s", f"{speed.step_s:.3g} s a step, {speed.source}"),
        ("wall time", f"{time.wall_s / HOUR_S:.1f} h", f"{steps:,} steps, validation, {time.saves} checkpoints, start of each job"),
        ("jobs", str(time.jobs), f"of {time.walltime_s / HOUR_S:.0f} h at most, chained"),
    ]
    if speed.mfu is not None:
        rows.insert(1, ("MFU", f"{speed.mfu:.0%}", "of the whole run, against the dense bf16 peak"))
    if planned.asked.gpus:
        price = "" if time.price_usd is None else f"{time.price_usd:,.0f} US dollars"
        rows.append(("GPU-hours", f"{time.gpu_hours:,.1f}", price))
    return rows


def _storage_rows(planned: Plan) -> list[tuple[str, str, str]]:
    disk = planned.storage
    data = "measured" if disk.dataset_is_measured else f"at most, for {disk.trained_tokens / 1e6:,.1f} million trained tokens"
    return [
        ("checkpoints", _size(disk.checkpoint_bytes * disk.checkpoints_kept), f"{disk.checkpoints_kept} of {_size(disk.checkpoint_bytes)}"),
        ("exported model", _size(disk.export_bytes), ""),
        ("dataset", _size(disk.dataset_bytes), data),
    ]


def _size(size: int) -> str:
    return f"{size / GB:,.1f} GB" if size >= GB else f"{size / 1e6:,.1f} MB"


def _print_layouts(console: Console, found: list[Found]) -> None:
    from rich.table import Table

    title = f"layouts that fit, the fastest {min(len(found), LAYOUTS_SHOWN)} of {len(found)}"
    table = Table("tokens/s", "MFU", "GiB", "settings to change", title=title, title_justify="left", box=None)
    for layout in found[:LAYOUTS_SHOWN]:
        speed = layout.plan.speed
        assert speed is not None and speed.mfu is not None
        memory = f"{layout.plan.fullest.peak_bytes / GIB:.1f}"
        table.add_row(f"{speed.tokens_per_s:,.0f}", f"{speed.mfu:.0%}", memory, " ".join(layout.changes) or "as it is")
    console.print(table)
