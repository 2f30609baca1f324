"""`sibol slice`: a Hugging Face folder with some of its layers. Parses and prints; the work is in `nemo_ext.convert.slicing`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def slice_model(
    hf_dir: Annotated[Path, typer.Argument(help="Hugging Face folder with safetensors weights.", metavar="HF_DIR")],
    out: Annotated[Path, typer.Argument(help="Hugging Face folder to write.", metavar="OUT")],
    layers: Annotated[Optional[str], typer.Option(help="Keep these layers, such as 0,2,4.")] = None,  # noqa: UP045
    first: Annotated[Optional[int], typer.Option(help="Keep the first N layers.", metavar="N")] = None,  # noqa: UP045
    every: Annotated[Optional[int], typer.Option(help="Keep layers 0, K, 2K and so on.", metavar="K")] = None,  # noqa: UP045
    dtype: Annotated[Optional[str], typer.Option(help="fp32, bf16 or fp16; by default that of the weights.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Keep some layers of a Hugging Face model, with its embeddings, final norm, head and tokenizer."""
    from nemo_ext.convert.rules import layer_count
    from nemo_ext.convert.slicing import choose_layers, slice_layers
    from nemo_ext.models.family import read_model_config
    from recipes.cli.progress import conversion_progress

    count = layer_count(read_model_config(hf_dir))
    kept = choose_layers(count, _numbers(layers), first, every)
    with conversion_progress() as progress:
        report = slice_layers(hf_dir, out, kept, dtype, overwrite, progress)
    typer.echo(f"Kept {len(kept)} of {count} layers ({', '.join(map(str, kept))}): {report.parameters:,} parameters -> {out}")
    typer.echo(f"Weights fingerprint: {report.fingerprint}")


def _numbers(text: str | None) -> list[int] | None:
    from nemo_ext.common.errors import ConfigError

    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--layers {text!r} is not a list of layers. Write numbers with commas, such as 0,2,4.") from None
