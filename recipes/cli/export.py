"""`sibol export`: a run's checkpoint -> a Hugging Face folder. Parses and prints; the work is in `nemo_ext.convert.export`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

_UNIT_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def export(
    run: Annotated[
        Path, typer.Argument(help="Run folder, the output_dir of `sibol train`, or a checkpoint of `sibol import`.", metavar="RUN")
    ],
    out: Annotated[Path, typer.Argument(help="Hugging Face folder to write.", metavar="OUT")],
    step: Annotated[Optional[int], typer.Option(help="Checkpoint of this step; by default the newest complete one.")] = None,  # noqa: UP045
    dtype: Annotated[Optional[str], typer.Option(help="fp32, bf16 or fp16; by default that of the checkpoint.")] = None,  # noqa: UP045
    max_shard: Annotated[str, typer.Option(help="Largest weights file, such as 5GB or 2GiB.")] = "5GB",
    workers: Annotated[int, typer.Option(help="Files that are read and written at the same time.", min=1)] = 2,
    verify: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--verify/--no-verify",
            help="Compare the export's logits with Megatron's before publishing it; by default if the model fits into memory in fp32.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a Hugging Face folder (weights, config, tokenizer, provenance) from a checkpoint. Started again after a kill, it goes on."""
    from nemo_ext.convert.export import export_folder
    from recipes.cli.progress import conversion_progress

    options = {"dtype": dtype, "max_shard_bytes": parse_size(max_shard, "--max-shard"), "workers": workers}
    with conversion_progress("comparing logits with Megatron" if verify is not False else None) as progress:
        report = export_folder(run, out, step, overwrite=overwrite, verify=verify, progress=progress, **options)
    what = "the imported checkpoint" if report.step is None else f"step {report.step}"
    typer.echo(f"Exported {what}: {report.parameters:,} parameters, {report.dtype}, {report.bytes / 1e6:,.1f} MB -> {report.folder}")
    typer.echo(f"Weights fingerprint: {report.fingerprint}")
    print_verification(report.verification)


def print_verification(verification: Mapping[str, Any] | None) -> None:
    """Say what the comparison of logits showed, or why there was none."""
    if verification is None:
        typer.echo("Not verified against Megatron's logits (--no-verify).")
    elif "skipped" in verification:
        typer.echo(f"Not verified: {verification['skipped']}.")
    else:
        difference, tolerance = verification["max_abs_difference"], verification["tolerance"]
        typer.echo(f"Verified: largest difference of fp32 logits to Megatron's {difference:.2g} (allowed {tolerance:g})")


def parse_size(text: str, option: str) -> int:
    """Bytes of a size such as "5GB" (10^9), "2GiB" (2^30) or "1000000". Raises ConfigError for anything else, and for zero."""
    from nemo_ext.common.errors import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = _UNIT_BYTES.get(match[2].upper()) if match else None
    size_bytes = int(float(match[1]) * unit) if match and unit else 0
    if size_bytes < 1:
        raise ConfigError(f"{option} {text!r} is not a size. Write a positive number with a unit, such as 5GB or 500MiB.")
    return size_bytes
