"""`sibol evaluate generate`: write a benchmark of Filipino inflection and spelling, letter games and additions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    out: Annotated[Path, typer.Argument(help="folder to write", metavar="OUT")],
    suites: Annotated[str, typer.Option(help="which, separated by commas")] = "pacute,hierarchical,langgame,addition",
    items: Annotated[int, typer.Option(help="items per subcategory, and chains of the hierarchy", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="seed of what is drawn", min=0)] = 1234,
    language: Annotated[str, typer.Option(help="en or tl: of langgame, whose rows have one language; the others have both")] = "tl",
) -> None:
    """Write benchmarks whose answers are right by construction: JSONL in the published schemas, and a manifest."""
    from evaluation.benchmarks.generate import Request
    from evaluation.benchmarks.generate import generate as write

    names = [name.strip() for name in suites.split(",") if name.strip()]
    manifest = write(out, names, Request(items, seed, language))
    for name, entry in manifest["files"].items():
        typer.echo(f"{name}: {entry['items']} items")
    for name, count in manifest["fewer_than_asked_for"].items():
        typer.echo(f"{name} has {count} instead of {items}: there are no further different ones.", err=True)
    typer.echo(f"Wrote {manifest['items']} items to {out}. Next: sibol evaluate HF_DIR --suite {names[0]} --data {out} --out RESULTS")
