"""`sibol bench`: the benchmarks behind docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Measure, side by side with what others would use.", no_args_is_help=True)


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
    if global_batch_size % micro_batch_size:
        raise ConfigError(f"--global-batch-size {global_batch_size} is not a multiple of --micro-batch-size {micro_batch_size}.")
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


@app.command()
def data(
    parts: Annotated[str, typer.Option(help="what to measure, separated by commas (default: everything)")] = "",
    megabytes: Annotated[int, typer.Option(help="text to encode", min=1)] = 64,
    plugin_megabytes: Annotated[int, typer.Option(help="text per length of document for plugins", min=1)] = 4,
    memory_megabytes: Annotated[int, typer.Option(help="input for the memory of a worker", min=1)] = 256,
    line_megabytes: Annotated[int, typer.Option(help="its longest line", min=1)] = 50,
    samples: Annotated[int, typer.Option(help="samples of the distribution", min=100)] = 20_000,
    kinds: Annotated[str, typer.Option(help="vocabularies, separated by commas")] = "gpt2,gemma",
    rounds: Annotated[int, typer.Option(help="turns per contender", min=1)] = 3,
    json_file: Annotated[Optional[Path], typer.Option("--json", help="write the figures here")] = None,  # noqa: UP045
) -> None:
    """Preparing data against the bare tokenizer and the usual way; plugins, scaling, memory. Prints each claim with its goal."""
    import dataclasses
    import os
    import tempfile

    from rich.console import Console
    from rich.table import Table

    from nemo_ext.common.errors import ConfigError, nearest
    from nemo_ext.common.files import write_json
    from recipes.bench.data import KINDS, MEBIBYTE, PARTS, DataBench, Sizes

    chosen = [name.strip() for name in parts.split(",")] if parts else list(PARTS)
    vocabularies = tuple(name.strip() for name in kinds.split(","))
    for option, names, known in (("--parts", chosen, list(PARTS)), ("--kinds", vocabularies, list(KINDS))):
        for name in names:
            if name not in known:
                raise ConfigError(f"{option} {name!r} is not known.{nearest(name, known)}")
    sizes = Sizes(
        text_bytes=megabytes * MEBIBYTE,
        plugin_bytes=plugin_megabytes * MEBIBYTE,
        memory_bytes=memory_megabytes * MEBIBYTE,
        line_bytes=line_megabytes * MEBIBYTE,
        rounds=rounds,
        samples=samples,
        kinds=vocabularies,
    )
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="sibol-bench-") as folder:
        bench = DataBench(Path(folder), sizes, lambda message: typer.echo(message, err=True))
        bench.prepare_inputs()
        found = {name: PARTS[name](bench) for name in chosen}
    table = Table("claim", "goal", "measured", "met")
    claims = [claim for part in found.values() for claim in part.claims]
    for claim in claims:
        table.add_row(claim.what, claim.goal_text, f"{claim.measured:.3g}", "yes" if claim.met else "no")
    Console().print(table)
    if json_file:
        figures = {name: part.figures for name, part in found.items()}
        records = [dataclasses.asdict(claim) | {"met": claim.met} for claim in claims]
        machine = {"cpus": os.cpu_count(), "load_before": load}
        write_json(json_file, {"sizes": dataclasses.asdict(sizes), "machine": machine, "figures": figures, "claims": records})


@app.command()
def mlm(
    preset: Annotated[str, typer.Option(help="shape of the model: a preset of modernbert")] = "base",
    layers: Annotated[Optional[int], typer.Option(help="layers of the model (default: all of the preset's)", min=1)] = None,  # noqa: UP045
    steps: Annotated[int, typer.Option(help="timed optimizer steps per turn", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="turns per contender", min=1)] = 3,
    piece_tokens: Annotated[int, typer.Option(help="longest piece of a document", min=8)] = 512,
    sequences: Annotated[int, typer.Option(help="pieces per step", min=1)] = 32,
    micro_batch_size: Annotated[int, typer.Option(help="pieces per padded forward pass", min=1)] = 8,
    row_tokens: Annotated[int, typer.Option(help="tokens of a packed row", min=8)] = 2048,
    json_file: Annotated[Optional[Path], typer.Option("--json", help="write the figures here")] = None,  # noqa: UP045
) -> None:
    """Masked language modelling of a ModernBERT-shaped model, packed and padded, against transformers' at mixed lengths."""
    from rich.console import Console
    from rich.table import Table

    from nemo_ext.common.errors import ConfigError
    from nemo_ext.common.files import write_json
    from recipes.bench.mlm import compare, summarise

    if sequences % micro_batch_size:
        raise ConfigError(f"--sequences {sequences} is not a multiple of --micro-batch-size {micro_batch_size}.")
    if row_tokens < piece_tokens:
        raise ConfigError(f"--row-tokens {row_tokens} is less than --piece-tokens {piece_tokens}: a piece has to fit into a row.")
    turns = []
    for job, speeds in compare(preset, layers, steps, rounds, piece_tokens, sequences, micro_batch_size, row_tokens):
        turns.append((job, speeds))
        typer.echo(f"{job.contender}: {len(speeds)} steps, {min(speeds):,.0f} to {max(speeds):,.0f} tokens/s", err=True)
    summary = summarise(turns)
    table = Table("contender", "real tokens/s (median)", "turns from", "to", "ratio to transformers")
    for name, entry in summary.items():
        figures = (f"{entry[key]:,.0f}" for key in ("tokens_per_s", "low", "high"))
        table.add_row(name, *figures, f"{entry['ratio_to_transformers']:.2f}")
    Console().print(table)
    if json_file:
        write_json(json_file, {"preset": preset, "layers": layers, "job": turns[0][0].__dict__ | {"contender": None}, "summary": summary})


@app.command()
def convert(
    layers: Annotated[str, typer.Option(help="layers of Qwen2.5-72B's shapes, separated by commas")] = "1,2,4",
    workers: Annotated[int, typer.Option(help="files read and written at the same time", min=1)] = 2,
    nemo: Annotated[bool, typer.Option("--nemo/--no-nemo", help="NeMo's own import of a small model, too")] = True,
    folder: Annotated[Optional[Path], typer.Option(help="where to write; 4 layers take 25 GB (default: the system's)")] = None,  # noqa: UP045
    json_file: Annotated[Optional[Path], typer.Option("--json", help="write the figures here")] = None,  # noqa: UP045
) -> None:
    """Import, export and direct load of a large model: private memory by size, and speed beside a plain copy."""
    import os
    import tempfile

    from rich.console import Console
    from rich.table import Table

    from nemo_ext.common.errors import ConfigError
    from nemo_ext.common.files import write_json
    from recipes.bench.convert import COLUMNS, compare, rows, whole_bytes
    from recipes.bench.convert_nemo import compare_with_nemo

    if not all(part.strip().isdecimal() and int(part) > 0 for part in layers.split(",")):
        raise ConfigError(f"--layers {layers!r} is not a list of numbers of layers. Write numbers from 1 on with commas, such as 1,2,4.")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="sibol-bench-", dir=folder) as place:
        found = compare([int(part) for part in layers.split(",")], Path(place), workers, lambda message: typer.echo(message, err=True))
        if nemo:
            found |= compare_with_nemo(Path(place), lambda message: typer.echo(message, err=True))
    table = Table(*COLUMNS)
    for row in rows(found):
        table.add_row(*row)
    Console().print(table)
    if json_file:
        figures = {name: {str(layers): one.as_json() for layers, one in by_layers.items()} for name, by_layers in found.items()}
        machine = {"cpus": os.cpu_count(), "load_before": load, "workers": workers}
        write_json(json_file, {"machine": machine, "whole_bytes": whole_bytes(), "figures": figures})


@app.command()
def evaluate(
    size: Annotated[str, typer.Option(help="10m or 100m parameters")] = "10m",
    items: Annotated[int, typer.Option(help="items of multiple choice", min=1)] = 10_000,
    rounds: Annotated[int, typer.Option(help="turns per contender", min=1)] = 3,
    json_file: Annotated[Optional[Path], typer.Option("--json", help="write the figures here")] = None,  # noqa: UP045
) -> None:
    """Multiple choice against bare forward passes of the same batches: what reading, scoring and statistics add to the model."""
    import dataclasses
    import os

    from rich.console import Console
    from rich.table import Table

    from nemo_ext.common.errors import ConfigError
    from nemo_ext.common.files import write_json
    from recipes.bench.evaluate import claims, compare
    from recipes.bench.train import SIZES

    if size not in SIZES:
        raise ConfigError(f"--size {size!r} is not known. Choose one of: {', '.join(SIZES)}.")
    load = os.getloadavg()[0]
    found = compare(size, items, rounds, lambda message: typer.echo(message, err=True))
    table = Table("claim", "goal", "measured", "met")
    for claim in claims(found):
        table.add_row(claim.what, claim.goal_text, f"{claim.measured:.3f}", "yes" if claim.met else "no")
    Console().print(table)
    if json_file:
        records = [dataclasses.asdict(claim) | {"met": claim.met} for claim in claims(found)]
        machine = {"cpus": os.cpu_count(), "load_before": load}
        write_json(json_file, {"size": size, "machine": machine, "figures": found, "claims": records})
