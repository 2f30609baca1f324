"""`sibol import`: a Hugging Face folder -> a Megatron checkpoint. Parses and prints; the work is in `nemo_ext.convert.importing`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from nemo_ext.convert.importing import ImportPlan


def import_model(
    hf_dir: Annotated[Path, typer.Argument(help="Hugging Face folder with safetensors weights.", metavar="HF_DIR")],
    out: Annotated[Path, typer.Argument(help="Checkpoint folder to write; model.init_from takes it.", metavar="CKPT")],
    dtype: Annotated[Optional[str], typer.Option(help="fp32, bf16 or fp16; by default that of the weights.")] = None,  # noqa: UP045
    max_file: Annotated[str, typer.Option(help="Largest file, such as 1GiB; what is complete survives a kill.")] = "1GiB",
    workers: Annotated[int, typer.Option(help="Files that are read and written at the same time.", min=1)] = 2,
    verify: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--verify/--no-verify", help="Compare both models' logits before publishing; by default if the model fits into memory."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace CKPT if it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be written, and leave.")] = False,
) -> None:
    """Convert a Hugging Face folder to a Megatron checkpoint for any tp and pp, without ever holding the model in memory.

    Started again after a kill, it goes on where it was.
    """
    from nemo_ext.convert.importing import import_model as convert
    from nemo_ext.convert.importing import plan_import
    from recipes.cli.export import parse_size, print_verification
    from recipes.cli.progress import conversion_progress

    plan = plan_import(hf_dir, dtype, parse_size(max_file, "--max-file"))
    typer.echo(_describe(plan), err=True)
    if dry_run:
        return
    with conversion_progress("comparing logits" if verify is not False else None) as progress:
        report = convert(plan, out, workers, overwrite, verify, progress)
    typer.echo(
        f"Imported {report.tensors:,} tensors, {report.parameters:,} parameters, {report.dtype}, {report.bytes / 1e6:,.1f} MB -> {out}"
    )
    typer.echo(f"Weights fingerprint: {report.fingerprint}")
    print_verification(report.verification)


def _describe(plan: ImportPlan) -> str:
    conversions = ", ".join(f"{elements:,} {what}" for what, elements in sorted(plan.conversions.items()))
    left_out = sorted(set(plan.source.reader.tensors) - set(plan.table.hf_shapes))
    return (
        f"from     {plan.source.name}: {len(plan.table.hf_shapes):,} tensors of a {plan.hf_config['model_type']} model\n"
        f"elements {conversions}\n"
        f"writes   {plan.bytes:,} bytes of weights, the vocabulary's padding included"
        + (f"\nleft out {', '.join(left_out)}: they follow from the rest" if left_out else "")
    )
