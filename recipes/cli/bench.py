"""`sibol bench`: the benchmarks behind docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Measure, side by side with what others would use.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `sibol bench` a group although it may hold one benchmark."""


@app.command()
def train(
    size: Annotated[str, typer.Option(help="10m or 100m parameters")] = "10m",
    steps: Annotated[int, typer.Option(help="timed optimizer steps per turn", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="turns per contender", min=1)] = 3,
    seq_length: Annotated[int, typer.Option(help="tokens per sequence", min=2)] = 512,
    global_batch_size: Annotated[int, typer.Option(help="sequences per step", min=1)] = 4,
    micro_batch_size: Annotated[int, typer.Option(help="sequences per forward pass", min=1)] = 4,
    json_file: Annotated[Optional[Path], typer.Option("--json", help="write the figures here")] = None,  # noqa: UP045
) -> None:
    """Training throughput against Hugging Face Trainer and a plain PyTorch loop: same model, batch, precision and threads."""
    from rich.console import Console
    from rich.table import Table

    from nemo_ext.common.errors import ConfigError
    from nemo_ext.common.files import write_json
    from recipes.bench.train import SIZES, compare, summarise

    if size not in SIZES:
        raise ConfigError(f"--size {size!r} is not known. Choose one of: {', '.join(SIZES)}.")
    turns = []
    for job, times in compare(size, steps, rounds, seq_length, global_batch_size, micro_batch_size):
        turns.append((job, times))
        typer.echo(f"{job.contender}: {len(times)} steps, fastest {min(times):.3f} s, slowest {max(times):.3f} s", err=True)
    summary = summarise(turns)
    table = Table("contender", "tokens/s (median)", "turns from", "to", "ratio to HF Trainer")
    for name, entry in summary.items():
        table.add_row(
            name, f"{entry['tokens_per_s']:,.0f}", f"{entry['low']:,.0f}", f"{entry['high']:,.0f}", f"{entry['ratio_to_hf_trainer']:.2f}"
        )
    Console().print(table)
    if json_file:
        write_json(json_file, {"size": size, "job": turns[0][0].__dict__ | {"contender": None}, "summary": summary})
