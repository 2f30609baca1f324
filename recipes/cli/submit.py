"""`sibol submit`: a recipe as jobs of a site. Parses and prints; the work is in `jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from recipes.cli.plan import complete_site
from recipes.cli.show import Overrides, RecipeName

if TYPE_CHECKING:
    from jobs.site import Site
    from jobs.stages import Wishes
    from jobs.submission import Destination
    from nemo_ext.config import RunConfig

# ruff: noqa: UP045  typer reads these annotations at run time

DEFAULT_SECRETS = Path("~/.config/sibol/secrets.env")


JobsDir = Annotated[Path, typer.Option(help="Folder for scripts, logs and records of jobs.", envvar="SIBOL_JOBS_DIR", metavar="DIR")]
DEFAULT_JOBS_DIR = Path("runs/jobs")


def submit(
    recipe: RecipeName,
    overrides: Overrides = None,
    site: Annotated[
        str, typer.Option(help="Where: a name of jobs/sites, or your own FILE.yaml.", envvar="SIBOL_SITE", autocompletion=complete_site)
    ] = "",
    stages: Annotated[str, typer.Option(help="Some of prepare,train,export,evaluate: each waits for the one before it.")] = "train",
    prepare: Annotated[
        Optional[str], typer.Option(help="Arguments of `sibol data prepare`, in quotes, without --out.", metavar="ARGS")
    ] = None,
    export: Annotated[Optional[str], typer.Option(help="More options of `sibol export`, in quotes.", metavar="ARGS")] = None,
    evaluate: Annotated[Optional[str], typer.Option(help="More options of `sibol evaluate`, in quotes.", metavar="ARGS")] = None,
    shards: Annotated[int, typer.Option(help="Array jobs that prepare the data, to be merged.", min=1)] = 1,
    nodes: Annotated[Optional[int], typer.Option(help="Nodes of training (default: the fewest that hold the model).", min=1)] = None,
    gpus_per_node: Annotated[Optional[int], typer.Option(help="GPUs of each node; 0: ranks on CPUs, for a rehearsal.", min=0)] = None,
    ranks_per_node: Annotated[Optional[int], typer.Option(help="Ranks of each node without GPUs.", min=1)] = None,
    cores: Annotated[Optional[int], typer.Option(help="Cores of each training node (default: the site's share).", min=1)] = None,
    memory: Annotated[Optional[float], typer.Option(help="GiB of memory of each training node (default: the site's share).", min=1)] = None,
    time: Annotated[
        Optional[list[str]],
        typer.Option(help="Walltime of training, or of a stage: --time 24:00:00 --time prepare=6:00:00.", metavar="[STAGE=]H:MM:SS"),
    ] = None,
    chain: Annotated[int, typer.Option(help="Start training up to this often: it saves before its time is over, and goes on.", min=1)] = 1,
    account: Annotated[Optional[str], typer.Option(help="Whom to charge.", envvar=["SIBOL_ACCOUNT", "SBATCH_ACCOUNT"])] = None,
    name: Annotated[Optional[str], typer.Option(help="Name of the jobs (default: that of the run).")] = None,
    runtime: Annotated[Optional[str], typer.Option(help="auto, apptainer, enroot, pyxis or none (default: the site's).")] = None,
    image: Annotated[Optional[str], typer.Option(help="Container image (default: the site's).", envvar="SIBOL_IMAGE")] = None,
    mount: Annotated[
        Optional[list[str]], typer.Option(help="More to mount into the container; may be repeated.", metavar="SRC:DST[:ro]")
    ] = None,
    secrets: Annotated[
        Optional[Path],
        typer.Option(help=f"NAME=VALUE lines for the job, in a file of mode 0600 (default: {DEFAULT_SECRETS}, if there is one)."),
    ] = None,
    jobs_dir: JobsDir = DEFAULT_JOBS_DIR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, print scripts and commands, and leave nothing behind.")] = False,
) -> None:
    """Submit a run, or a whole study, to a site's scheduler; on a site without one, run it here.

    Exit code, where it runs here: that of the last job.
    """
    from jobs import submission
    from jobs.site import load_site
    from jobs.stages import Wishes, study_jobs
    from nemo_ext.common.errors import ConfigError
    from nemo_ext.config import apply_overrides
    from recipes import load_recipe

    if not site:
        raise ConfigError("Say where: --site NAME, or SIBOL_SITE in the environment. `sibol jobs --sites` lists the sites.")
    facts = load_site(site)
    config = apply_overrides(load_recipe(recipe), overrides or [])
    arguments = {"prepare": prepare, "export": export, "evaluate": evaluate}
    wishes = Wishes(
        stages=tuple(stage for stage in stages.split(",") if stage),
        name=name,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        ranks_per_node=ranks_per_node,
        cores=cores,
        memory_gib=memory,
        shards=shards,
        chain=chain,
        times_s=stage_times(time or []),
        arguments={stage: text for stage, text in arguments.items() if text is not None},
    )
    jobs = study_jobs(recipe, list(overrides or []), config, facts, wishes)
    destination = _destination(facts, jobs_dir, account, runtime, image, mount or [], secrets)
    check_inputs(config, wishes)
    if not dry_run:
        raise typer.Exit(submission.submit(name or config.name, jobs, destination, typer.echo))
    submission.check(jobs, destination)
    folder = jobs_dir.resolve() / "SUBMISSION"
    for text in submission.scripts(jobs, destination, folder).values():
        typer.echo(text)
    for line in submission.commands(jobs, destination, folder):
        typer.echo(f"# {line}")


def stage_times(texts: list[str]) -> dict[str, int]:
    """Walltimes in seconds by stage, from `H:MM:SS` (training) and `STAGE=H:MM:SS`."""
    from jobs.site import parse_walltime

    pairs = (text.rpartition("=") for text in texts)
    return {stage or "train": parse_walltime(walltime) for stage, _, walltime in pairs}


def check_inputs(config: RunConfig, wishes: Wishes) -> None:
    """What a training job would miss only once it runs: datasets (unless they are prepared first) and a model to start from."""
    from nemo_ext.common.dataset import open_dataset
    from nemo_ext.common.errors import ConfigError

    if "train" not in wishes.stages:
        return
    if "prepare" not in wishes.stages:
        for path in [config.data.path] if config.data.path else config.data.blend:
            open_dataset(path)
    start = config.model.init_from
    if start and not Path(start).is_dir():
        raise ConfigError(f"model.init_from={start} is not a folder. `sibol stage` fetches a model from the Hugging Face Hub.")


def _destination(
    site: Site, jobs_dir: Path, account: str | None, runtime: str | None, image: str | None, mounts: list[str], secrets: Path | None
) -> Destination:
    from jobs.render import Container
    from jobs.submission import Destination, built_image
    from nemo_ext.common.errors import ConfigError

    runtimes = ("auto", "apptainer", "enroot", "pyxis", "none")
    if runtime is not None and runtime not in runtimes:
        raise ConfigError(f"--runtime {runtime} is not known. Choose one of: {', '.join(runtimes)}.")
    default = DEFAULT_SECRETS.expanduser()
    chosen = secrets or (default if default.is_file() else None)
    file = image or site.image or built_image(runtime or site.runtime)
    if file and Path(file).exists():
        file = str(Path(file).resolve())  # pyxis takes a bare name for one in a registry
    container = Container(runtime or site.runtime, file, tuple(mounts), str(chosen.resolve()) if chosen else None)
    return Destination(site, jobs_dir, account, container)
