"""`sibol report` and `sibol compare`: what runs and evaluations amount to, and how they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN_OR_RESULT...",
        help="Run folders, results.json files or their folders; LABEL=PATH gives a label, and equal labels join seeds.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an earlier one in --out")]


def report(
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="folder for report.html, report.md, summary.json, tables/ and figures/")],
    title: Annotated[Optional[str], typer.Option(help="heading of the page")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
) -> None:
    """Write one self-contained HTML page on runs and results, and its tables as Markdown, CSV and LaTeX."""
    from evaluation.report import PAGE_NAME, write_report

    write_report(inputs, out, title=title, overwrite=overwrite)
    typer.echo(f"Wrote {out / PAGE_NAME}")


def compare(
    inputs: Inputs,
    factor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="what is under study, such as dataset.plugin; other differences are warned of (may be repeated)"),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="folder for comparison.json, comparison.md and tables/ (CSV, LaTeX)")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
) -> None:
    """Compare models item by item: paired differences with intervals, which are noise, and what else differs."""
    from rich.console import Console

    from evaluation.compare import compare as run_comparison
    from evaluation.compare_tables import comparison_tables
    from evaluation.report_files import write_comparison
    from evaluation.report_tables import rich_table

    comparison = run_comparison(inputs, factor or [])
    tables = comparison_tables(comparison)
    if out is not None:
        write_comparison(comparison, tables, out, overwrite)
    console = Console()
    for table in tables:
        console.print(rich_table(table))
        for note in table.notes:
            console.print(note, style="dim", markup=False)
    for line in comparison["warnings"]:
        console.print(f"Warning: {line}", style="yellow", markup=False)
    for line in comparison["unknown"]:
        console.print(f"Not known: {line}", style="yellow", markup=False)
    if out is not None:
        typer.echo(f"Wrote {out / 'comparison.json'}")
