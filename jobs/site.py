"""Sites: where jobs run, as facts in `jobs/sites/NAME.yaml`. What a job asks of a site is decided elsewhere (see `jobs.request`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035  OmegaConf reads these annotations at run time

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ext.common.errors import ConfigError, nearest
from nemo_ext.config.checks import check_values
from nemo_ext.config.schema import setting

# ruff: noqa: RUF009  `setting` makes a dataclass field

SITES = Path(__file__).resolve().parent / "sites"
BASED_ON = "based_on"  # a site file may name another one, and then holds only what differs


@dataclass
class NodeFacts:
    """One node that trains, and how many there are of it."""

    count: int = setting(1, "nodes of this kind", minimum=1)
    cores: Optional[int] = setting(None, "CPU cores; null: those of the machine the job runs on", minimum=1)  # noqa: UP045
    memory_gib: Optional[float] = setting(None, "memory that jobs may ask for; null: that of the machine", minimum=0)  # noqa: UP045
    local_disk_gb: Optional[float] = setting(None, "node-local disk", minimum=0)  # noqa: UP045
    gpus: int = setting(0, "GPUs; 0: ranks run on CPUs", minimum=0)
    gpu_model: str = setting("", "the GPU's name in requests, such as h100")
    gpu_memory_gib: float = setting(0, "memory of one GPU", minimum=0)
    gpu_peak_bf16_tflops: float = setting(0, "dense bf16 peak of one GPU in 10^12 operations per second, from its data sheet", minimum=0)
    cores_per_gpu: Optional[int] = setting(None, "most cores to ask for with each GPU; null: an even share", minimum=1)  # noqa: UP045


@dataclass
class CpuJobs:
    """What a job without GPUs (preparing data) asks for, unless told otherwise."""

    cores: int = setting(16, "cores", minimum=1)
    memory_gib: float = setting(64, "memory", minimum=1)


@dataclass
class Limits:
    """What the scheduler lets one user do."""

    walltime: str = setting("168:00:00", "longest walltime, H:MM:SS or D-HH:MM:SS")
    shortest_walltime: str = setting("0:00:00", "shortest walltime")
    jobs: Optional[int] = setting(None, "most jobs queued and running, each element of an array counting as one", minimum=1)  # noqa: UP045
    name_length: int = setting(64, "longest job name", minimum=1)


@dataclass
class Account:
    """To whom the time is charged."""

    required: bool = setting(False, "whether jobs without an account are refused")
    pattern: str = setting(r"[A-Za-z0-9][\w.@-]*", "regular expression that account names match")
    example: str = setting("", "an account's name, for messages")


@dataclass
class Site:
    """Facts about one site. `source` says where they come from."""

    name: str = setting("", "name of the site: that of its file")
    description: str = setting("", "what it is, in one line")
    source: str = setting("", "where these facts stand")
    scheduler: str = setting("none", "who runs jobs; none: this machine, at once", choices=("slurm", "pbs", "none"))
    runtime: str = setting(
        "auto", "what runs the container; none: jobs run as they are", choices=("auto", "apptainer", "enroot", "pyxis", "none")
    )
    image: Optional[str] = setting(None, "container image; null: the one that containers/build.sh built for the runtime")  # noqa: UP045
    modules: List[str] = setting([], "environment modules to load")  # noqa: UP006
    mounts: List[str] = setting([], "SRC:DST[:ro] to mount into the container besides the project")  # noqa: UP006
    internet: bool = setting(True, "whether compute nodes reach the internet")
    offline_cache: Optional[str] = setting(None, "Hugging Face cache that `sibol stage` filled; null: the user's own")  # noqa: UP045
    gpu_request: str = setting("", "how GPUs are asked for: one option with {model} and {count}")
    queue: Optional[str] = setting(None, "partition or queue; null: the scheduler chooses")  # noqa: UP045
    extra_directives: List[str] = setting([], "more directives, as they stand after #SBATCH or #PBS")  # noqa: UP006
    price_per_gpu_hour_usd: Optional[float] = setting(None, "price of one GPU for one hour; null: not sold", minimum=0)  # noqa: UP045
    node: NodeFacts = field(default_factory=NodeFacts)
    cpu_jobs: CpuJobs = field(default_factory=CpuJobs)
    limits: Limits = field(default_factory=Limits)
    account: Account = field(default_factory=Account)

    @property
    def longest_walltime_s(self) -> int:
        """The longest walltime that the site grants, in seconds."""
        return parse_walltime(self.limits.walltime)


def site_names() -> list[str]:
    """Names of the sites that come with the project."""
    return sorted(path.stem for path in SITES.glob("*.yaml"))


def load_site(name: str) -> Site:
    """A site by name, or from a file of one's own (`my_site.yaml`). Raises ConfigError for what is not known or does not fit."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else SITES / f"{name}.yaml"
    if path.parent == SITES and not path.is_file():
        raise ConfigError(f"Unknown site {name!r}.{nearest(name, site_names())} A file of your own is given as --site FILE.yaml.")
    try:
        tree = _read(path, ())
        tree["name"] = path.stem
        site: Site = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Site), tree))  # type: ignore[assignment]
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(
            f"Site file {path} is not valid: {str(error).splitlines()[0]}. Its settings are the fields of jobs/site.py."
        ) from None
    check_site(site, path)
    return site


def _read(path: Path, above: tuple[Path, ...]) -> Any:
    """The file's tree, laid over that of the site it is based on."""
    if not path.is_file():
        raise ConfigError(f"Site file {path} does not exist. Known sites: {', '.join(site_names())}.")
    if path in above:
        raise ConfigError(f"Site file {path} is based on itself, through {' -> '.join(map(str, above))}.")
    loaded = OmegaConf.load(path)
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"Site file {path} holds no settings. Expected lines such as `scheduler: slurm`, or `based_on: nibi`.")
    base = loaded.pop(BASED_ON, None)
    if base is None:
        return loaded
    below = SITES / f"{base}.yaml" if not str(base).endswith((".yaml", ".yml")) else path.parent / str(base)
    return OmegaConf.merge(_read(below, (*above, path)), loaded)


def check_site(site: Site, path: Path) -> None:
    """Check facts against each other. Raises ConfigError."""
    try:
        check_values(site)
        parse_walltime(site.limits.walltime)
        parse_walltime(site.limits.shortest_walltime)
        re.compile(site.account.pattern)
    except (ConfigError, re.error) as error:
        raise ConfigError(f"Site file {path}: {error}") from None
    if site.scheduler == "slurm" and site.node.gpus and not {"{model}", "{count}"} <= set(re.findall(r"\{\w+\}", site.gpu_request)):
        raise ConfigError(
            f"Site file {path}: gpu_request={site.gpu_request!r} must hold {{model}} and {{count}}: --gpus-per-node={{model}}:{{count}}."
        )


def parse_walltime(text: str) -> int:
    """Seconds of `H:MM:SS` or `D-HH:MM:SS`. Raises ConfigError for anything else: a bare number's unit differs by scheduler."""
    match = re.fullmatch(r"(?:(\d+)-(\d{1,2})|(\d+)):([0-5]\d):([0-5]\d)", text)
    if not match or (match[1] and int(match[2]) > 23):
        raise ConfigError(f"Walltime {text!r} is not understood. Write hours, minutes and seconds, 24:00:00, or 2-00:00:00 for two days.")
    days, day_hours, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + day_hours + hours) * 60 + minutes) * 60 + seconds


def format_walltime(seconds: int) -> str:
    """`H:MM:SS`, which Slurm and PBS both read."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
