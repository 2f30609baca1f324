"""A whole plan: does the run fit, how long does it take, what does it cost, and what should its owner know."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jobs.plan.architecture import Architecture
from jobs.plan.duration import Duration, Speed, Stated, duration, speed
from jobs.plan.layout import Layout, layout_of
from jobs.plan.memory import RESERVED_BYTES, RankMemory, rank_memory
from jobs.plan.resources import Resources, architecture_of, hidden_dropout, prepared_data
from jobs.plan.storage import Storage, storage
from nemo_ext.common.blend import Blend
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig, check_architecture, check_run
from nemo_ext.models.family import padded_vocab_size
from nemo_ext.tasks.task import TASKS

GIB = 2**30
NOTHING_STATED = Stated()
MFU_SCALE = 1_000_000_000  # parameters, about as many as the smallest model that published figures are of
NOTABLE_SAVING = 0.05  # of a run's time


@dataclass(frozen=True)
class Plan:
    """One run on one site. `problems` keep it from running, `notes` do not."""

    run: str
    config: RunConfig
    architecture: Architecture
    data: Blend | None
    layout: Layout
    asked: Resources
    memory: tuple[RankMemory, ...]
    speed: Speed | None
    duration: Duration | None
    storage: Storage
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fullest(self) -> RankMemory:
        """The pipeline stage that needs most."""
        return max(self.memory, key=lambda memory: memory.peak_bytes)

    @property
    def fits(self) -> bool:
        """Whether every rank's memory suffices; true where the memory is not known."""
        limit = self.asked.gpu_memory_bytes
        return not limit or self.fullest.peak_bytes <= limit - RESERVED_BYTES

    def as_json(self) -> dict[str, Any]:
        """Every figure, with its unit in its name."""
        site = self.asked.site
        return {
            "run": self.run,
            "site": site.name,
            "nodes": self.asked.nodes,
            "gpus": self.asked.gpus,
            "gpu_model": site.node.gpu_model,
            "gpu_memory_bytes": self.asked.gpu_memory_bytes,
            "reserved_bytes": RESERVED_BYTES,
            "parameters": self.architecture.parameters,
            "layout": asdict(self.layout),
            "fits": self.fits,
            "memory": [{**asdict(memory), "peak_bytes": memory.peak_bytes} for memory in self.memory],
            "speed": self.speed and asdict(self.speed),
            "duration": self.duration and {**asdict(self.duration), "wall_s": self.duration.wall_s},
            "storage": {**asdict(self.storage), "total_bytes": self.storage.total_bytes},
            "problems": self.problems,
            "notes": self.notes,
        }


def make_plan(config: RunConfig, asked: Resources, stated: Stated = NOTHING_STATED) -> Plan:
    """The plan of a run. Raises SibolError for settings that no memory and no time would make run."""
    data = prepared_data(config)
    return plan_model(config, architecture_of(config, data), data, asked, stated)


def plan_model(config: RunConfig, architecture: Architecture, data: Blend | None, asked: Resources, stated: Stated) -> Plan:
    """The plan of a run whose model and data are known already."""
    check_plannable(config, architecture, asked.ranks)
    layout = layout_of(config, asked.ranks, architecture.objective)
    memory = tuple(rank_memory(architecture, layout, hidden_dropout(config, architecture)))
    pace = speed(architecture, layout, asked, stated)
    time = duration(config, architecture, layout, asked, pace.step_s) if pace else None
    disk = storage(config, architecture, layout, data, time.saves if time else 1)
    plan = Plan(config.name, config, architecture, data, layout, asked, memory, pace, time, disk)
    _say_what_matters(plan, stated)
    return plan


def check_plannable(config: RunConfig, architecture: Architecture, ranks: int) -> None:
    """Check the settings as training would, a dataset apart, which a plan may do without. Raises ConfigError."""
    check_run(_with_data(config), ranks)
    TASKS.get(config.data.task).require_settings(config)
    check_architecture(config, architecture.hf_config)
    rows = padded_vocab_size(architecture.hf_config["vocab_size"])
    if rows % config.parallel.tp:
        raise ConfigError(
            f"The vocabulary, padded to {rows}, is not divisible by parallel.tp={config.parallel.tp}. Use a tp that divides it."
        )


def _with_data(config: RunConfig) -> RunConfig:
    return config if config.data.path or config.data.blend else replace(config, data=replace(config.data, path="planned"))


def _say_what_matters(plan: Plan, stated: Stated) -> None:
    asked, layout, node = plan.asked, plan.layout, plan.asked.site.node
    if asked.nodes > node.count:
        plan.problems.append(f"{asked.nodes} nodes are asked for; site {asked.site.name} has {node.count} of this kind.")
    if not plan.fits:
        plan.problems.append(_memory_problem(plan))
        if plan.fullest.state_bytes > asked.gpu_memory_bytes - RESERVED_BYTES:
            plan.notes.append(_offload_note(plan))
    if node.gpus and layout.tp > asked.ranks_per_node:
        plan.problems.append(f"tp={layout.tp} spans nodes of {asked.ranks_per_node} GPUs: each layer would wait for the network. Raise pp.")
    if plan.speed is None:
        plan.notes.append(f"Site {asked.site.name} names no GPU, so nothing is said of time. State --tokens-per-s from a short run.")
    elif stated == NOTHING_STATED and plan.architecture.parameters < MFU_SCALE:
        plan.notes.append(
            "The estimated MFU is that of billions of parameters; smaller models reach less. State --tokens-per-s from a short run."
        )
    time = plan.duration
    if time and time.saves > time.jobs and time.saving_s > NOTABLE_SAVING * time.wall_s:
        share, minutes = time.saving_s / time.wall_s, plan.config.checkpoint.every_minutes
        plan.notes.append(f"Saving takes {share:.0%} of the time (checkpoint.every_minutes={minutes}). Save less often.")
    if not plan.storage.dataset_is_measured:
        plan.notes.append("The dataset is not here: its size is that of every trained token stored once, and the vocabulary the preset's.")


def _memory_problem(plan: Plan) -> str:
    full, limit = plan.fullest, plan.asked.gpu_memory_bytes
    return (
        f"Stage {full.stage} needs {full.peak_bytes / GIB:.1f} GiB of each GPU, of which {(limit - RESERVED_BYTES) / GIB:.0f} of "
        f"{limit / GIB:.0f} GiB can be used: weights {full.weights_bytes / GIB:.1f}, gradients {full.gradients_bytes / GIB:.1f}, "
        f"optimizer {full.optimizer_bytes / GIB:.1f}, activations {full.activations_bytes / GIB:.1f}, "
        f"on top {max(full.loss_bytes, full.working_bytes) / GIB:.1f}."
    )


def _offload_note(plan: Plan) -> str:
    """What it would take to keep the optimizer's state in the host's memory."""
    full, node = plan.fullest, plan.asked.site.node
    left, host = full.peak_bytes - full.optimizer_bytes, full.optimizer_bytes * plan.asked.ranks_per_node
    enough = left <= plan.asked.gpu_memory_bytes - RESERVED_BYTES and (node.memory_gib is None or host <= node.memory_gib * GIB)
    return (
        f"With the optimizer's state in host memory a GPU would need {left / GIB:.1f} GiB and a node {host / GIB:.0f} GiB"
        f"{'' if node.memory_gib is None else f' of its {node.memory_gib:.0f}'}, which {'would' if enough else 'would not'} fit; "
        "no setting here does that, so take more nodes."
    )
