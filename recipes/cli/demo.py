"""`sibol demo`: the whole way on a small example, on any machine."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from recipes.cli.show import complete_override


def demo(
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the demo recipe to change.", autocompletion=complete_override),
    ] = None,
    input: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Your own text: JSONL with a field 'text', or a folder of .txt files. Default: Python's documentation topics."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path("demo"),
    ranks: Annotated[int, typer.Option(help="Tensor-parallel ranks.", min=1, max=4)] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in a folder that holds a demo.")] = False,
) -> None:
    """From raw text to an evaluated Hugging Face model: tokenizer, dataset, training with a stop and a resume, export, report."""
    from rich.console import Console
    from rich.table import Table

    from nemo_ext.common.errors import ConfigError
    from recipes.demo_stages import Demo

    began = time.monotonic()
    if overwrite and (out / "demo.json").is_file():
        if input is not None and input.resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"--overwrite would remove --input {input}, which lies in --out {out}. Move it out of there.")
        shutil.rmtree(out)
    one = Demo(out, input, ranks, overrides or [])
    one.claim()
    stages = one.stages()
    for number, (what, done, work) in enumerate(stages, 1):
        present = done.exists()
        typer.secho(f"[{number}/{len(stages)}] {what}{' (already done)' if present else ''}", bold=True)
        if not present:
            stage_began = time.monotonic()
            work()
            typer.secho(f"      {time.monotonic() - stage_began:.0f} s", dim=True)
    header, rows = one.summary()
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    typer.echo(f"Model: {one.trained}   Report: {one.report / 'report.html'}   ({time.monotonic() - began:.0f} s)")
