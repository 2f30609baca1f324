"""A study as jobs that wait for one another: prepare -> merge -> train -> export -> evaluate, or some of these.

What connects them stands in the run's settings: the dataset is `data.path`, the run folder is `output_dir`, and the export and its
results lie inside that folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jobs.job import Job, cpu_job_cores, require_single_lines
from jobs.site import Site
from nemo_ext.common.errors import ConfigError, nearest
from nemo_ext.config import RunConfig, check_run
from nemo_ext.config.checks import check_data, check_values

# Walltimes of stages when none is given; a site's shortest and longest bound them.
DEFAULT_TIMES_S = {"prepare": 6 * 3600, "merge": 3600, "train": 24 * 3600, "export": 3600, "evaluate": 3 * 3600}
STAGES = tuple(DEFAULT_TIMES_S)
# Options that this module sets itself, since other stages rely on them.
TAKEN_OPTIONS = {"prepare": ("--out", "--shard", "--dry-run"), "export": (), "evaluate": ("--data", "--out")}


@dataclass(frozen=True)
class Wishes:
    """What the user asks for beyond the recipe. None: as the recipe and the site suggest.

    `chain`: how often training may be started, in all. `arguments`: more options of a stage's command.
    """

    stages: tuple[str, ...] = ("train",)
    name: str | None = None
    nodes: int | None = None
    gpus_per_node: int | None = None
    ranks_per_node: int | None = None
    cores: int | None = None
    memory_gib: float | None = None
    shards: int = 1
    chain: int = 1
    times_s: Mapping[str, int] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Ranks of a training job."""

    nodes: int
    gpus_per_node: int
    ranks_per_node: int


def study_jobs(recipe: str, overrides: list[str], config: RunConfig, site: Site, wishes: Wishes) -> list[Job]:
    """The jobs of the wished stages in order, each waiting for the one before it. Raises ConfigError."""
    check_stages(wishes)
    name = wishes.name or config.name
    stages = [stage for stage in STAGES if stage in wishes.stages or (stage == "merge" and _sharded(wishes))]
    jobs: list[Job] = []
    for stage in stages:
        job = _stage_job(stage, recipe, overrides, config, site, wishes)
        label = f"{name}-{stage}" if len(stages) > 1 else name
        jobs.append(replace(job, name=label, after=(jobs[-1].name,) if jobs else ()))
        jobs[-1:] = _chain(jobs[-1], site)
    return jobs


def _chain(job: Job, site: Site) -> list[Job]:
    """A chain as jobs that wait from the start, for sites where what depends on a job would not wait for its continuations.

    Slurm requeues a job under its own id, and without a scheduler the body goes on by itself: there the chain is one job.
    """
    if site.scheduler != "pbs" or not job.max_hops:
        return [job]
    jobs = [replace(job, max_hops=None)]
    for hop in range(1, job.max_hops + 1):
        jobs.append(replace(jobs[0], name=f"{job.name}-{hop + 1}", hop=hop, after=(jobs[-1].name,)))
    return jobs


def check_stages(wishes: Wishes) -> None:
    """Refuse stages that do not exist or that lack what they need. Raises ConfigError."""
    for stage in wishes.stages:
        if stage not in STAGES:
            raise ConfigError(f"Unknown stage {stage!r}.{nearest(stage, STAGES)}")
    unused = [
        stage
        for stage in (*wishes.arguments, *wishes.times_s)
        if stage not in wishes.stages and not (stage == "merge" and _sharded(wishes))
    ]
    if unused:
        raise ConfigError(f"Settings for {unused[0]}, which is not among the stages {','.join(wishes.stages)}. Name it in --stages.")
    if not wishes.stages:
        raise ConfigError(f"--stages is empty. Name some of {','.join(STAGES)}.")
    if "prepare" in wishes.stages and not wishes.arguments.get("prepare"):
        raise ConfigError("Stage prepare needs --prepare 'INPUT... --tokenizer DIR', the arguments of `sibol data prepare` without --out.")
    if wishes.shards > 1 and "prepare" not in wishes.stages:
        raise ConfigError(f"--shards {wishes.shards} without the stage prepare, which alone has shards. Name it in --stages.")


def layout(config: RunConfig, site: Site, wishes: Wishes) -> Layout:
    """Nodes, GPUs and ranks of training: as wished, else the fewest that hold the model. Raises ConfigError."""
    parallel = config.parallel
    model_ranks = parallel.tp * parallel.pp * parallel.cp
    gpus = wishes.gpus_per_node
    if gpus is None:
        gpus = site.node.gpus if wishes.nodes else min(site.node.gpus, model_ranks)
    nodes = wishes.nodes or (-(-model_ranks // gpus) if gpus else 1)
    ranks = wishes.ranks_per_node or gpus or -(-model_ranks // nodes)
    if gpus and ranks != gpus:
        raise ConfigError(
            f"--ranks-per-node {ranks} with {gpus} GPUs per node. Each GPU has one rank: leave the option out, or use 0 GPUs."
        )
    check_values(config)
    check_run(config, nodes * ranks)
    return Layout(nodes, gpus, ranks)


def _sharded(wishes: Wishes) -> bool:
    return wishes.shards > 1 and "prepare" in wishes.stages


def _stage_job(stage: str, recipe: str, overrides: list[str], config: RunConfig, site: Site, wishes: Wishes) -> Job:
    default_s = site.longest_walltime_s if site.scheduler == "none" else min(DEFAULT_TIMES_S[stage], site.longest_walltime_s)
    walltime_s = wishes.times_s.get(stage) or default_s
    if stage == "train":
        ranks = layout(config, site, wishes)
        return Job(
            stage,
            ("sibol", "train", recipe, *overrides),
            walltime_s,
            nodes=ranks.nodes,
            gpus_per_node=ranks.gpus_per_node,
            ranks_per_node=ranks.ranks_per_node,
            cores=wishes.cores,
            memory_gib=wishes.memory_gib,
            run_dir=config.output_dir,
            max_hops=wishes.chain - 1 or None,
        )
    command = stage_command(stage, config, _arguments(stage, wishes))
    if stage == "prepare":
        # Where cores are asked for, no more than those are used; PBS does not keep a job to its own.
        chosen = any(word == "--workers" or word.startswith("--workers=") for word in command)
        workers = () if site.scheduler == "none" or chosen else ("--workers", str(cpu_job_cores(site)))
        return Job(stage, (*command, *workers), walltime_s, shards=wishes.shards if _sharded(wishes) else None)
    on_gpu = stage in ("export", "evaluate") and site.node.gpus > 0 and wishes.gpus_per_node != 0
    return Job(stage, command, walltime_s, gpus_per_node=int(on_gpu))


def stage_command(stage: str, config: RunConfig, more: list[str]) -> tuple[str, ...]:
    """The command of a stage other than training. Raises ConfigError when the run has no single dataset to prepare or to evaluate on."""
    export_dir = f"{config.output_dir}/hf"
    if stage == "export":
        return ("sibol", "export", config.output_dir, export_dir, *more)
    check_data(config.data)
    if config.data.blend:
        raise ConfigError(f"Stage {stage} works on one dataset, but data.blend names {len(config.data.blend)}. Prepare them one by one.")
    commands: dict[str, tuple[str, ...]] = {
        "prepare": ("sibol", "data", "prepare", *more, "--out", config.data.path),
        "merge": ("sibol", "data", "merge", config.data.path),
        "evaluate": ("sibol", "evaluate", export_dir, "--data", config.data.path, "--out", f"{config.output_dir}/results", *more),
    }
    return commands[stage]


def _arguments(stage: str, wishes: Wishes) -> list[str]:
    text = wishes.arguments.get(stage, "")
    require_single_lines(f"--{stage}", text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--{stage} {text!r} has an open quote ({error}). Write it as you would on the command line.") from None
    for taken in TAKEN_OPTIONS.get(stage, ()):
        if any(word == taken or word.startswith(f"{taken}=") for word in words):
            raise ConfigError(f"--{stage} holds {taken}, which is set from the run's settings and --shards. Leave it out.")
    return words
