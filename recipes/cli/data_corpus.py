"""`sibol data chunk`, `split` and `dedup`: raw text to raw text, before it is tokenized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

INPUTS = typer.Argument(help="files, folders or glob patterns: .jsonl or .ndjson, also .gz or .zst", metavar="INPUT...")
COMPRESSION = typer.Option(help="none, gz or zst (default: as the first input)")
OVERWRITE = typer.Option("--overwrite", help="replace what an earlier run of this command wrote")
ON_BAD_LINE = typer.Option(help="lines that cannot be used: fail, skip, or quarantine (skip and keep them)")


def chunk(
    inputs: Annotated[list[str], INPUTS],
    chunks: Annotated[int, typer.Option(help="number of files to cut into", min=1)],
    out: Annotated[Path, typer.Option(help="folder to write", metavar="DIR")],
    by: Annotated[str, typer.Option(help="what is made equal: lines or bytes")] = "lines",
    compression: Annotated[str | None, COMPRESSION] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
) -> None:
    """Cut a corpus into N files of equal size, for N jobs; one after the other they are the input again."""
    from data_tools.chunk import ChunkOptions
    from data_tools.chunk import chunk as run_chunk

    options = ChunkOptions(inputs=tuple(inputs), out=out, chunks=chunks, by=by, compression=compression, overwrite=overwrite)
    with bytes_bar("written") as on_bytes:
        manifest = run_chunk(options, on_bytes)
    sizes = [entry["lines"] for entry in manifest["chunks"]]
    typer.echo(
        f"{sum(sizes):,} lines in {len(sizes)} chunks of {min(sizes):,} to {max(sizes):,} lines, {manifest['text']['bytes']:,} bytes"
    )
    typer.echo(f"Wrote {out}")


def split(
    inputs: Annotated[list[str], INPUTS],
    out: Annotated[Path, typer.Option(help="folder to write", metavar="DIR")],
    group_by: Annotated[str, typer.Option(help="field whose value no two splits may share, such as study_id or meta.study")],
    shares: Annotated[str, typer.Option(help="shares of the groups for train, validation and test, by hash of the group")] = "90,5,5",
    seed: Annotated[int, typer.Option(help="another seed gives another split", min=0)] = 1234,
    on_bad_line: Annotated[str, ON_BAD_LINE] = "fail",
    compression: Annotated[str | None, COMPRESSION] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
) -> None:
    """Split lines into train, validation and test so that no group is in two of them; the files are read again to prove it."""
    from data_tools.group_split import SplitOptions, split_by_group

    options = SplitOptions(
        inputs=tuple(inputs),
        out=out,
        group_by=group_by,
        shares=shares,
        seed=seed,
        on_bad_line=on_bad_line,
        compression=compression,
        overwrite=overwrite,
    )
    with bytes_bar("read") as on_bytes:
        manifest = split_by_group(options, on_bytes)
    _print_splits(manifest)
    typer.echo(f"Wrote {out}")


def dedup(
    inputs: Annotated[list[str], INPUTS],
    out: Annotated[Path, typer.Option(help="folder to write", metavar="DIR")],
    text_field: Annotated[str, typer.Option(help="field of a JSON line that holds the text")] = "text",
    threshold: Annotated[float, typer.Option(help="share of common word runs from which documents count as the same")] = 0.8,
    words: Annotated[int, typer.Option(help="words in a run", min=1)] = 5,
    permutations: Annotated[int, typer.Option(help="more estimate the share better and cost more", min=1)] = 128,
    on_bad_line: Annotated[str, ON_BAD_LINE] = "fail",
    compression: Annotated[str | None, COMPRESSION] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
) -> None:
    """Leave out documents that nearly repeat an earlier one (MinHash); duplicates.jsonl says which, and of which."""
    from data_tools.near_duplicates import DedupOptions, remove_near_duplicates

    options = DedupOptions(
        inputs=tuple(inputs),
        out=out,
        text_field=text_field,
        threshold=threshold,
        words=words,
        permutations=permutations,
        on_bad_line=on_bad_line,
        compression=compression,
        overwrite=overwrite,
    )
    with bytes_bar("read") as on_bytes:
        manifest = remove_near_duplicates(options, on_bytes)
    typer.echo(f"Kept {manifest['documents']['lines']:,} documents.")
    print_skipped(manifest["skipped"])
    typer.echo(f"Wrote {out}")


def _print_splits(manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table, splits = Table("split", "groups", "lines", "bytes", "share of lines"), manifest["splits"]
    total = sum(entry["lines"] for entry in splits.values())
    for name, entry in splits.items():
        table.add_row(name, *(f"{entry[key]:,}" for key in ("groups", "lines", "text_bytes")), f"{entry['lines'] / total:.1%}")
    Console().print(table)
    print_skipped(manifest["skipped"])
    typer.echo(f"Groups of {manifest['group_by']} in two splits, as read again from the files: {manifest['proof']['groups_in_two_splits']}")


def print_skipped(skipped: dict[str, int]) -> None:
    """One line about lines that are not in the output."""
    typer.echo(f"Left out: {', '.join(f'{count:,} {reason}' for reason, count in skipped.items()) or 'nothing'}.")


@contextmanager
def bytes_bar(what: str) -> Iterator[Callable[[int], None]]:
    """Bytes so far and per second on stderr; nothing when that is not a terminal."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda count: bar.update(task, completed=count)
