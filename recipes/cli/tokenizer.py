"""`sibol tokenizer`: train a tokenizer, and see how one cuts text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train tokenizers and see how they cut text.", no_args_is_help=True)


@app.command()
def train(
    inputs: Annotated[
        list[str], typer.Argument(help="files, folders or glob patterns: .jsonl, .ndjson, .txt, also .gz or .zst", metavar="INPUT...")
    ],
    out: Annotated[Path, typer.Option(help="tokenizer folder to write", metavar="DIR")],
    vocab_size: Annotated[int, typer.Option(help="number of tokens, with the 256 bytes and <|endoftext|>", min=257)] = 4096,
    kind: Annotated[str, typer.Option(help="byte-level BPE as qwen2 or gpt2, or SentencePiece-style BPE as gemma")] = "qwen2",
    min_frequency: Annotated[int, typer.Option(help="occurrences from which on a pair of tokens may be merged", min=1)] = 2,
    text_field: Annotated[str, typer.Option(help="field of a JSON line that holds the text")] = "text",
    on_bad_line: Annotated[str, typer.Option(help="lines without a document: fail or skip")] = "fail",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the tokenizer in --out")] = False,
) -> None:
    """Train a BPE tokenizer and write it as a Hugging Face folder."""
    from data_tools.bad_lines import BadLines
    from data_tools.inputs import find_inputs
    from data_tools.texts import measure, read_texts
    from nemo_ext.common.errors import ConfigError
    from nemo_ext.tokenizers import train as run_train

    if on_bad_line not in ("fail", "skip"):
        raise ConfigError(f"--on-bad-line {on_bad_line!r} is not known. Choose fail or skip.")
    found = find_inputs(inputs)
    with BadLines(on_bad_line, found, None) as bad_lines, _progress_bar(found.size_bytes) as on_bytes:
        texts = read_texts(found, text_field, bad_lines, on_bytes)
        tokenizer = run_train(texts, vocab_size, out, kind=kind, min_frequency=min_frequency, overwrite=overwrite)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted((bad_lines.counts + found.skipped).items()))
    tokens, size = measure(tokenizer, read_texts(found, text_field, BadLines("skip", found, None)))
    typer.echo(f"{tokenizer.vocab_size:,} tokens, {size / tokens:.3f} bytes per token on the first {size:,} bytes.")
    typer.echo(f"Left out: {left_out or 'nothing'}.")
    typer.echo(f"Wrote {out} (fingerprint {tokenizer.fingerprint[:12]})")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="Hugging Face tokenizer folder", metavar="DIR")],
    text: Annotated[str, typer.Argument(help="text to cut into tokens")],
) -> None:
    """Show how a tokenizer cuts a text: token boundaries, ids and bytes per token."""
    from data_tools.inspection import token_texts, with_boundaries
    from nemo_ext.tokenizers import load

    tokenizer = load(path)
    ids = tokenizer.encode_batch([text]).ids
    typer.echo(with_boundaries(token_texts(tokenizer, ids)))
    typer.echo(" ".join(map(str, ids.tolist())))
    size = len(text.encode("utf-8"))
    typer.echo(f"{len(ids)} tokens, {size} bytes, {size / max(1, len(ids)):.3f} bytes per token; vocabulary of {tokenizer.vocab_size:,}")


@contextmanager
def _progress_bar(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes that are read, on stderr; nothing when that is not a terminal. Merging follows reading, without a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=total_bytes)

        def show_bytes(count: int) -> None:
            bar.update(task, completed=count, description="merging" if count >= total_bytes else "reading")

        yield show_bytes
