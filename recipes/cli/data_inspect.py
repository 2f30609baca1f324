"""`sibol data inspect`: what is in a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recipes.cli.data_prepare import print_left_out

if TYPE_CHECKING:
    from nemo_ext.common.dataset import DatasetInfo


def inspect(
    path: Annotated[Path, typer.Argument(help="dataset folder written by `sibol data prepare`", metavar="DIR")],
    samples: Annotated[int, typer.Option(help="documents to show with visible token boundaries", min=0)] = 0,
    split: Annotated[str, typer.Option(help="split to take samples from")] = "train",
    plot: Annotated[Path | None, typer.Option(help="write a histogram of document lengths (.png, .svg, .pdf)", metavar="FILE")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="read every byte and compare digests, not only sizes")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Show documents, tokens, bytes and lengths of a dataset, and samples as the model will see them."""
    import json

    from data_tools.inspection import plot_lengths, sample_documents, summarize
    from nemo_ext.common.dataset import open_dataset

    info = open_dataset(path, verify_contents=verify)
    summary = summarize(info)
    shown = sample_documents(info, split, samples) if samples else []
    if plot is not None:
        plot_lengths(info, plot)
    if as_json:
        typer.echo(json.dumps(summary | {"samples": shown}, indent=2, ensure_ascii=False))
        return
    _print_summary(info, summary)
    for sample in shown:
        _print_sample(sample)
    if plot is not None:
        typer.echo(f"Wrote {plot}")


def _print_summary(info: DatasetInfo, summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Table("split", "documents", "tokens", "bytes", "bytes/token")
    lengths = Table("tokens per document", *next(iter(summary["splits"].values()))["tokens_per_document"])
    for name, entry in summary["splits"].items():
        counts.add_row(name, *(f"{entry[key]:,}" for key in ("documents", "tokens", "bytes")), f"{entry['bytes_per_token']}")
        lengths.add_row(name, *(f"{value:,}" for value in entry["tokens_per_document"].values()))
    Console().print(counts, lengths)
    typer.echo(f"{info.path}: dataset {info.fingerprint[:12]}, tokenizer {info.tokenizer_fingerprint[:12]} with {info.vocab_size:,} tokens")
    print_left_out(summary)


def _print_sample(sample: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from data_tools.inspection import with_boundaries

    shown, total = len(sample["pieces"]), sample["tokens"]
    heading = f"{sample['split']} document {sample['document']}, {'first ' + str(shown) + ' of ' if shown < total else ''}{total:,} tokens"
    Console().print(Text(heading, style="bold"), Text(with_boundaries(sample["pieces"])), sep="\n")
