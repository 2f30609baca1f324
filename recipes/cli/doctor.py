"""`sibol doctor`: versions, backend, devices, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

REQUIRED = ("torch", "megatron-core", "nemo_toolkit", "lightning", "transformers", "tokenizers", "safetensors", "omegaconf", "numpy")
OPTIONAL = {
    "transformer_engine": "Transformer Engine layers (comes with NVIDIA's container)",
    "apex": "fused optimizers (comes with NVIDIA's container)",
    "nemo_run": "recipes as NeMo-Run partials (pip install 'sibol[nemo-run]')",
    "wandb": "Weights & Biases logging",
    "tensorboard": "TensorBoard logging",
    "matplotlib": "plots",
}


def doctor(
    families: Annotated[bool, typer.Option("--families", help="List the model families and their presets as well.")] = False,
    ranks: Annotated[bool, typer.Option("--ranks", help="Start two gloo ranks and let them add up a number.")] = False,
) -> None:
    """Say what this machine has and what a run here would use; exit code 1 when something needed is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("what", "found", "", box=None)
    problems = 0
    for what, found, remark in [*_packages(), *_machine(), *_backend(), *(_gloo_ranks() if ranks else [])]:
        problems += remark.startswith(("missing", "failed"))
        table.add_row(what, found, escape(remark))
    Console().print(table)
    if families:
        _print_families()
    if problems:
        typer.echo(f"{problems} problem(s). `make install` sets up the environment.", err=True)
        raise typer.Exit(1)


def _packages() -> Iterator[tuple[str, str, str]]:
    yield "python", platform.python_version(), ""
    for name in REQUIRED:
        try:
            yield name, version(name), ""
        except PackageNotFoundError:
            yield name, "-", "missing: run `make install`"
    for name, use in OPTIONAL.items():
        yield name, "yes" if find_spec(name) else "no", f"optional: {use}"


def _machine() -> Iterator[tuple[str, str, str]]:
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield "cores", str(cores), f"{cores} CPU ranks without sharing a core"
    yield "memory", f"{memory_gib:.1f} GiB", ""
    yield "free disk here", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB", ""


def _backend() -> Iterator[tuple[str, str, str]]:
    from nemo_ext.backend import VALIDATED, check_versions, on_cpu
    from nemo_ext.common.errors import VersionError

    if find_spec("torch") is None:
        return
    try:
        check_versions()
        validated = "versions validated: " + ", ".join(f"{name} {wanted}" for name, wanted in VALIDATED.items())
    except VersionError as error:
        validated = f"failed: {error}"
    yield "backend", "cpu, gloo" if on_cpu() else "cuda, nccl", validated
    if not on_cpu():
        import torch

        for index in range(torch.cuda.device_count()):  # what is there, for a person to read
            yield f"gpu {index}", torch.cuda.get_device_name(index), ""


def _gloo_ranks() -> Iterator[tuple[str, str, str]]:
    from nemo_ext.engine.rank_check import two_ranks_add_up

    seconds, error = two_ranks_add_up()
    yield "two gloo ranks", f"{seconds:.1f} s", error and f"failed: {error}"


def _print_families() -> None:
    from nemo_ext.models.family import FAMILIES

    for name in FAMILIES.names():
        typer.echo(f"family {name}: presets {', '.join(FAMILIES.get(name).presets)}")
