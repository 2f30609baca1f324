"""A draft of a resource request: one study of one or several runs at one site, every figure from their plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.plan.estimate import Plan
from jobs.plan.memory import RESERVED_BYTES, optimizer_bytes_per_parameter
from jobs.plan.search import smallest_peak_bytes
from jobs.plan.speed import operations
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import atomic_file, refuse_existing

TEMPLATE = "request.md.j2"
CONTINGENCY = 0.25  # our judgement: short runs that find the learning rate, runs that fail, nodes that fail
GIB, GB, TB = 2**30, 1e9, 1e12


@dataclass(frozen=True)
class Stage:
    """A run of the study: its recipe's name, what it is in one line, and its plan."""

    recipe: str
    description: str
    plan: Plan


def write_request(path: Path, stages: Sequence[Stage], overwrite: bool = False) -> None:
    """Write the request. Raises ConfigError for a plan that does not fit or says nothing of time, OutputExistsError for a taken path."""
    refuse_existing(path, overwrite)
    for stage in stages:
        if stage.plan.problems or stage.plan.duration is None or not stage.plan.asked.gpus:
            reason = (stage.plan.problems or ["nothing is known of its time on GPUs"])[0]
            raise ConfigError(f"{stage.recipe} cannot be asked for: {reason} Mend the layout, or choose a site with GPUs.")
    text = request_text(stages)
    with atomic_file(path) as handle:
        handle.write(text)


def request_text(stages: Sequence[Stage]) -> str:
    """The request as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    largest = max(stages, key=lambda stage: stage.plan.asked.gpus)
    hours = sum(stage.plan.duration.gpu_hours for stage in stages if stage.plan.duration)
    return environment.get_template(TEMPLATE).render(
        stages=stages,
        largest=largest,
        site=largest.plan.asked.site,
        hours=hours,
        asked_hours=ceil(hours * (1 + CONTINGENCY)),
        contingency=CONTINGENCY,
        prices=[stage.plan.duration.price_usd for stage in stages if stage.plan.duration],
        node_table=node_table(largest.plan),
        operations=operations,
        optimizer_bytes=optimizer_bytes_per_parameter(largest.plan.layout),
        usable_gib=(largest.plan.asked.gpu_memory_bytes - RESERVED_BYTES) / GIB,
        storage_bytes=sum(stage.plan.storage.total_bytes for stage in stages),
        GIB=GIB,
        GB=GB,
        TB=TB,
    )


def node_table(plan: Plan) -> list[tuple[int, float, bool]]:
    """(nodes, GiB on the fullest GPU under the leanest layout, whether it fits) from one node to those asked for."""
    rows, limit = [], plan.asked.gpu_memory_bytes - RESERVED_BYTES
    for nodes in range(1, plan.asked.nodes + 1):
        peak = smallest_peak_bytes(plan, nodes)
        if peak is not None:
            rows.append((nodes, peak / GIB, peak <= limit))
    return rows
