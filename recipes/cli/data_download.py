"""`sibol data download`: a Hugging Face dataset as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def download(
    repo: Annotated[
        str, typer.Argument(help="owner/name on the Hugging Face Hub, a local folder, sea-pile-v2-filipino or socsci210", metavar="REPO")
    ],
    out: Annotated[Path, typer.Option(help="file to write: .jsonl, .jsonl.gz or .jsonl.zst", metavar="FILE")],
    subset: Annotated[str | None, typer.Option(help="configuration of the dataset")] = None,
    data_dir: Annotated[str | None, typer.Option(help="folder within the dataset, often a language")] = None,
    split: Annotated[str, typer.Option(help="split of the dataset")] = "train",
    fields: Annotated[str | None, typer.Option(help="fields to keep, such as text,url (default: all)")] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit (default: the newest)")] = None,
    rows: Annotated[int | None, typer.Option(help="only the first so many rows", min=1)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file in --out")] = False,
) -> None:
    """Fetch a dataset as JSON lines; run again after an interruption, it goes on where it was."""
    from data_tools.download import DownloadOptions
    from data_tools.download import download as run_download
    from data_tools.hub import HubSource, known_source

    names = tuple(name.strip() for name in fields.split(",") if name.strip()) if fields else ()
    source = known_source(HubSource(repo=repo, subset=subset, data_dir=data_dir, split=split, fields=names, revision=revision))
    with _rows_bar() as on_rows:
        manifest = run_download(DownloadOptions(source=source, out=out, rows=rows, overwrite=overwrite), on_rows)
    typer.echo(f"{manifest['rows']:,} rows, {manifest['text_bytes']:,} bytes of JSON, revision {manifest['source']['revision']}")
    typer.echo(f"Wrote {out} ({manifest['file']['bytes']:,} bytes)")


@contextmanager
def _rows_bar() -> Iterator[Callable[[int, int | None], None]]:
    """Rows so far, and how long the rest will take if their number is known, on stderr; nothing when that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda rows, total: bar.update(task, completed=rows, total=total)
