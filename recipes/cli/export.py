"""`sibol export`: a run's checkpoint -> a Hugging Face folder. Parses and prints; the work is in `nemo_ext.convert.export`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

_UNIT_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, the output_dir of `sibol train`.", metavar="RUN")],
    out: Annotated[Path, typer.Argument(help="Hugging Face folder to write.", metavar="OUT")],
    step: Annotated[Optional[int], typer.Option(help="Checkpoint of this step; by default the newest complete one.")] = None,  # noqa: UP045
    dtype: Annotated[Optional[str], typer.Option(help="fp32, bf16 or fp16; by default that of the checkpoint.")] = None,  # noqa: UP045
    max_shard: Annotated[str, typer.Option(help="Largest weights file, such as 5GB or 2GiB.")] = "5GB",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Compare the export's logits with Megatron's before publishing it; needs the model in fp32 in memory.",
        ),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a Hugging Face folder (weights, config, tokenizer, provenance) from a run's checkpoint."""
    from nemo_ext.convert.export import export_run

    size_bytes = parse_size(max_shard)
    with progress_bar(verify) as progress:
        report = export_run(run, out, step, dtype=dtype, max_shard_bytes=size_bytes, overwrite=overwrite, verify=verify, progress=progress)
    typer.echo(
        f"Exported step {report.step}: {report.parameters:,} parameters, {report.dtype}, {report.bytes / 1e6:,.1f} MB -> {report.folder}"
    )
    typer.echo(f"Weights fingerprint: {report.fingerprint}")
    if report.verification:
        difference, tolerance = report.verification["max_abs_difference"], report.verification["tolerance"]
        typer.echo(f"Verified: largest difference of fp32 logits to Megatron's {difference:.2g} (allowed {tolerance:g})")
    else:
        typer.echo("Not verified against Megatron's logits (--no-verify).")


def parse_size(text: str) -> int:
    """Bytes of a size such as "5GB" (10^9), "2GiB" (2^30) or "1000000". Raises ConfigError for anything else, and for zero."""
    from nemo_ext.common.errors import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = _UNIT_BYTES.get(match[2].upper()) if match else None
    size_bytes = int(float(match[1]) * unit) if match and unit else 0
    if size_bytes < 1:
        raise ConfigError(f"--max-shard {text!r} is not a size. Write a positive number with a unit, such as 5GB or 500MiB.")
    return size_bytes


@contextmanager
def progress_bar(verify: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr when that is a terminal, otherwise nothing; called with (elements done, elements in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("writing weights", total=None)

        def update(done: int, total: int) -> None:
            finished = done == total
            bar.update(
                task,
                completed=done,
                total=total,
                description="comparing logits with Megatron" if finished and verify else "writing weights",
            )

        yield update
