"""`sibol data prepare` and `sibol data merge`: text to datasets, on one machine or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_tools.prepare import Progress


def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(help="files, folders or glob patterns: .jsonl, .ndjson, .txt, also .gz or .zst; .parquet", metavar="INPUT..."),
    ],
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer folder", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="dataset folder to write", metavar="DIR")],
    text_field: Annotated[str, typer.Option(help="field that holds the text, or several with commas: they are joined")] = "text",
    separator: Annotated[str, typer.Option(help="what joins several text fields (default: an empty line)", show_default=False)] = "\n\n",
    id_field: Annotated[str | None, typer.Option(help="field that identifies a document (default: the text itself)")] = None,
    sentences: Annotated[bool, typer.Option("--sentences", help="one sequence per sentence, as BERT's sentence pairs want it")] = False,
    prepend_bos: Annotated[
        bool, typer.Option("--prepend-bos", help="begin documents with the tokenizer's beginning-of-text token")
    ] = False,
    append_eod: Annotated[bool, typer.Option("--append-eod/--no-append-eod", help="end documents with the end-of-document token")] = True,
    drop_duplicates: Annotated[
        str | None, typer.Option(help="exact: keep of equal texts the first (near duplicates: `sibol data dedup`)", metavar="exact")
    ] = None,
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
    shard: Annotated[str | None, typer.Option(help="do one share of the work, for `sibol data merge`", metavar="NUMBER/COUNT")] = None,
    verify_encoder: Annotated[bool, typer.Option("--verify-encoder", help="encode twice, prove the faster encoder on every text")] = False,
) -> None:
    """Tokenize text into a Megatron indexed dataset with train, validation and test splits and a manifest.

    When it was interrupted, the same command goes on where it was.
    """
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
        shard=shard,
        verify_encoder=verify_encoder,
        separator=separator,
        sentences=sentences,
        prepend_bos=prepend_bos,
        drop_duplicates=drop_duplicates,
    )
    with _progress_bar() as on_progress:
        manifest = run_prepare(options, on_progress)
    if shard is not None:
        typer.echo(f"Shard {shard} is done. When all are, run: sibol data merge {out}")
        return
    _print_prepared(manifest)
    typer.echo("Nothing was written (--dry-run)." if dry_run else f"Wrote {out}")


def merge(out: Annotated[Path, typer.Argument(help="the --out of all shards", metavar="DIR")]) -> None:
    """Put the shards of a dataset together: the same bytes as of one `sibol data prepare` without --shard."""
    from data_tools.merge import merge as run_merge

    _print_prepared(run_merge(out))
    typer.echo(f"Wrote {out}")


def _print_prepared(manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("split", *("documents", "tokens", "bytes"))
    for name, entry in manifest["splits"].items():
        table.add_row(name, *(f"{entry[key]:,}" for key in ("documents", "tokens", "bytes")))
    Console().print(table)
    print_left_out(manifest)


def print_left_out(manifest: dict[str, Any]) -> None:
    """One line about the documents that are not in a dataset, or are in it twice."""
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in manifest["skipped"].items())
    typer.echo(f"Left out: {left_out or 'nothing'}. Documents whose id occurred before: {manifest['duplicate_documents']:,}.")


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
    with Bar(*columns, console=console, disable=not console.is_terminal, auto_refresh=False) as bar:  # no thread, see `start_method`
        task = bar.add_task("prepare", total=None, rate="")

        def show(progress: Progress) -> None:
            tokens_per_s = progress.tokens / max(1e-9, time.monotonic() - start_s)
            bar.update(task, total=progress.total_bytes, completed=progress.bytes_read, rate=f"{tokens_per_s:,.0f} tokens/s", refresh=True)

        yield show
