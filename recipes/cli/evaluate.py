"""`sibol evaluate`: score a Hugging Face folder and write results.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from recipes.cli import benchmark
from recipes.cli.groups import DefaultGroup, NamelessCommand

Model = Annotated[
    Path,
    typer.Argument(
        help="Hugging Face folder with config, tokenizer and .safetensors weights; for suites that read them (ner), a file of predictions",
        metavar="HF_DIR",
    ),
]
Data = Annotated[Path, typer.Option(help="dataset folder, or file or folder of .jsonl, .txt (also .gz)")]
Out = Annotated[Path, typer.Option(help="folder for results.json and per_document.jsonl")]
SUITES = (  # written out, because looking for those of other packages would slow every command; a test holds them to the registry
    "addition, bits_per_byte, cloze, hierarchical, langgame, lm_eval:TASK, minimal_pairs, multiple_choice, ner, pacute, survey, throughput"
)
SuiteName = Annotated[str, typer.Option(help=f"what to measure: {SUITES}, or a suite of another package")]
Split = Annotated[Optional[str], typer.Option(help="split of a dataset folder (default: test)")]  # noqa: UP045
TextField = Annotated[str, typer.Option(help="field of JSONL records that holds the text")]
Baseline = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="second Hugging Face folder, scored on the same documents; the paired difference is reported", metavar="HF_DIR"),
]
Context = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="longest window, in tokens (default: the model's max_position_embeddings, at most 2048)", min=1),
]
Stride = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        help="new tokens scored per window of a long document; the rest of the context is read again (default: the context)", min=1
    ),
]
ScoreEod = Annotated[bool, typer.Option("--score-eod", help="score an end-of-document token after each document, too")]
BatchSize = Annotated[Optional[int], typer.Option(help="most windows in a batch (default: as memory allows)", min=1)]  # noqa: UP045
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:NUMBER")]
Resamples = Annotated[int, typer.Option(help="bootstrap resamples behind the intervals", min=1)]
Confidence = Annotated[float, typer.Option(help="confidence of the intervals")]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="option of the suite; may be given several times", metavar="NAME=VALUE"),
]
Seed = Annotated[int, typer.Option(help="seed of the bootstrap, and of whatever a suite draws", min=0)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the results in --out")]

app = typer.Typer(cls=DefaultGroup, help="Measure a Hugging Face model, or generate a benchmark to measure it with.")
app.command("generate")(benchmark.generate)


@app.command("evaluate", cls=NamelessCommand, hidden=True, epilog="`sibol evaluate generate OUT` writes a benchmark; see its --help.")
def evaluate(
    model: Model,
    data: Data,
    out: Out,
    suite: SuiteName = "bits_per_byte",
    split: Split = None,
    text_field: TextField = "text",
    baseline: Baseline = None,
    context: Context = None,
    stride: Stride = None,
    score_eod: ScoreEod = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
    resamples: Resamples = 2000,
    confidence: Confidence = 0.95,
    seed: Seed = 1234,
    options: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure a Hugging Face model on text, in fp32, with confidence intervals, optionally against a second model."""
    from rich.console import Console

    from evaluation.options import split_assignments
    from evaluation.run import evaluate as run_evaluation
    from evaluation.suites import Settings
    from evaluation.table import render

    settings = Settings(
        split=split,
        text_field=text_field,
        context_tokens=context,
        stride_tokens=stride,
        score_end_of_document=score_eod,
        batch_size=batch_size,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        options=split_assignments(options or []),
    )
    results = run_evaluation(
        model, data, out, suite=suite, baseline_dir=baseline, settings=settings, device=device, overwrite=overwrite, progress=_progress_bar
    )
    Console().print(render(results))
    typer.echo(f"Wrote {out / 'results.json'}")


@contextmanager
def _progress_bar(description: str, total_bytes: int) -> Iterator[Callable[[float], None]]:
    """A bar over the bytes of text on stderr; nothing when that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total_bytes)
        yield lambda size: progress.advance(task, size)
