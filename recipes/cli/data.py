"""`sibol data`: text to datasets, and a look into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_tools.prepare import Progress
    from nemo_ext.common.dataset import DatasetInfo

app = typer.Typer(help="Turn text into datasets and look into them.", no_args_is_help=True)


@app.command()
def prepare(
    inputs: Annotated[
        list[str], typer.Argument(help="files, folders or glob patterns: .jsonl, .ndjson, .txt, also .gz or .zst", metavar="INPUT...")
    ],
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer folder", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="dataset folder to write", metavar="DIR")],
    text_field: Annotated[str, typer.Option(help="field of a JSON line that holds the text")] = "text",
    id_field: Annotated[str | None, typer.Option(help="field that identifies a document (default: the text itself)")] = None,
    append_eod: Annotated[bool, typer.Option("--append-eod/--no-append-eod", help="end documents with the end-of-document token")] = True,
    split: Annotated[str, typer.Option(help="shares of train, validation and test, by hash of the document id")] = "98,1,1",
    workers: Annotated[int | None, typer.Option(help="processes (default: by input size); any number gives the same bytes", min=1)] = None,
    min_tokens: Annotated[int, typer.Option(help="leave out and count documents with fewer tokens", min=0)] = 1,
    max_tokens: Annotated[int | None, typer.Option(help="leave out and count documents with more tokens", min=1)] = None,
    on_bad_line: Annotated[str, typer.Option(help="lines without a document: fail, skip, or quarantine (skip and keep them)")] = "fail",
    plugin: Annotated[str, typer.Option(help="tokenizer plugin that maps the ids")] = "vanilla",
    settings: Annotated[list[str] | None, typer.Option("--set", help="setting of the plugin, may be repeated", metavar="KEY=VALUE")] = None,
    seed: Annotated[int, typer.Option(help="seed of the plugin's random choices", min=0)] = 1234,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the dataset in --out")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="read, check and count everything, write nothing")] = False,
) -> None:
    """Tokenize text into a Megatron indexed dataset with train, validation and test splits and a manifest."""
    from data_tools.prepare import PrepareOptions
    from data_tools.prepare import prepare as run_prepare

    options = PrepareOptions(
        inputs=tuple(inputs),
        tokenizer=tokenizer,
        out=out,
        text_field=text_field,
        id_field=id_field,
        append_eod=append_eod,
        split=split,
        workers=workers,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        on_bad_line=on_bad_line,
        plugin=plugin,
        plugin_settings=tuple(settings or ()),
        seed=seed,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    with _progress_bar() as on_progress:
        manifest = run_prepare(options, on_progress)
    _print_prepared(manifest)
    typer.echo("Nothing was written (--dry-run)." if dry_run else f"Wrote {out}")


@app.command()
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


def _print_prepared(manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("split", *("documents", "tokens", "bytes"))
    for name, entry in manifest["splits"].items():
        table.add_row(name, *(f"{entry[key]:,}" for key in ("documents", "tokens", "bytes")))
    Console().print(table)
    _print_left_out(manifest)


def _print_left_out(manifest: dict[str, Any]) -> None:
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in manifest["skipped"].items())
    typer.echo(f"Left out: {left_out or 'nothing'}. Documents whose id occurred before: {manifest['duplicate_documents']:,}.")


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
    _print_left_out(summary)


def _print_sample(sample: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from data_tools.inspection import with_boundaries

    shown, total = len(sample["pieces"]), sample["tokens"]
    heading = f"{sample['split']} document {sample['document']}, {'first ' + str(shown) + ' of ' if shown < total else ''}{total:,} tokens"
    Console().print(Text(heading, style="bold"), Text(with_boundaries(sample["pieces"])), sep="\n")


@contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A bar over the bytes of the input on stderr, with tokens per second; nothing when that is not a terminal."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    rate = TextColumn("{task.fields[rate]}")
    console, start_s = Console(stderr=True), time.monotonic()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), rate, TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("prepare", total=None, rate="")

        def show(progress: Progress) -> None:
            tokens_per_s = progress.tokens / max(1e-9, time.monotonic() - start_s)
            bar.update(task, total=progress.total_bytes, completed=progress.bytes_read, rate=f"{tokens_per_s:,.0f} tokens/s")

        yield show
