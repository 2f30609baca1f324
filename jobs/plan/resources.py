"""What is asked of a site for a run: nodes, GPUs of each, walltime of a job, price; and the model's config without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.plan.architecture import Architecture, read_architecture
from jobs.site import Site
from nemo_ext.common.blend import Blend, open_blend
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.hf_config import own_name, with_common_names
from nemo_ext.config import RunConfig
from nemo_ext.config.checks import longest_sequence
from nemo_ext.models.family import FAMILIES, family_of, read_model_config

DROPOUT_FIELDS = ("resid_pdrop", "hidden_dropout_prob")


@dataclass(frozen=True)
class Resources:
    """One job's share of a site. Ranks are GPUs where the site has some, CPU ranks elsewhere."""

    site: Site
    nodes: int
    ranks_per_node: int
    walltime_s: int
    price_per_gpu_hour_usd: float | None

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def gpus(self) -> int:
        return self.ranks if self.site.node.gpus else 0

    @property
    def gpu_memory_bytes(self) -> int:
        return int(self.site.node.gpu_memory_gib * 2**30)

    @property
    def peak_flops(self) -> float:
        """Dense bf16 peak of one GPU, 0 where there is none."""
        return self.site.node.gpu_peak_bf16_tflops * 1e12 if self.gpus else 0.0


def resources(
    config: RunConfig, site: Site, nodes: int | None, gpus_per_node: int | None, walltime_s: int | None, price: float | None
) -> Resources:
    """What is asked for; by default as few GPUs as hold the model once, of a whole node as soon as it takes several nodes.

    Raises ConfigError for more than the site has.
    """
    model_ranks = config.parallel.tp * config.parallel.pp * config.parallel.cp
    per_node_most = site.node.gpus or model_ranks
    per_node = gpus_per_node or (min(model_ranks, per_node_most) if nodes is None else per_node_most)
    if site.node.gpus and per_node > site.node.gpus:
        raise ConfigError(f"--gpus-per-node {per_node}: a node of site {site.name} has {site.node.gpus} GPUs. Ask for more nodes instead.")
    longest_s = site.longest_walltime_s
    if walltime_s is not None and walltime_s > longest_s:
        raise ConfigError(
            f"--time: site {site.name} grants at most {site.limits.walltime}. Longer runs are chained jobs; leave --time out."
        )
    return Resources(
        site=site,
        nodes=nodes or -(-model_ranks // per_node),
        ranks_per_node=per_node,
        walltime_s=walltime_s or longest_s,
        price_per_gpu_hour_usd=site.price_per_gpu_hour_usd if price is None else price,
    )


def prepared_data(config: RunConfig) -> Blend | None:
    """The run's datasets, None when they are not on this machine (yet). Raises DataError for damaged ones."""
    weights = config.data.blend or ({config.data.path: 1.0} if config.data.path else {})
    if not weights or not all(Path(path).is_dir() for path in weights):
        return None
    return open_blend(weights)


def architecture_of(config: RunConfig, data: Blend | None) -> Architecture:
    """The model that the run would train: of `init_from`, else of the preset, with the data's vocabulary where it is known.

    Raises ConfigError or ConversionError as training would.
    """
    model = config.model
    if model.init_from is not None:
        start = Path(model.init_from)
        hf_config = read_model_config(start if (start / "config.json").is_file() else start / "model")  # that of an imported checkpoint
        return read_architecture(family_of(hf_config), hf_config)
    family = FAMILIES.get(model.family)
    hf_config = family.hf_config(model.preset, model.overrides, vocab_size=data.vocab_size if data else None)
    positions = own_name(hf_config, "max_position_embeddings")
    if positions not in model.overrides:  # as in training: a new model knows the positions it is trained on
        hf_config[positions] = longest_sequence(config)
    return read_architecture(family, family.normal_form(hf_config))


def hidden_dropout(config: RunConfig, architecture: Architecture) -> float:
    """Dropout on the residual branches: the run's, else the Hugging Face config's."""
    if config.model.hidden_dropout is not None:
        return config.model.hidden_dropout
    found = with_common_names(architecture.hf_config)
    return max((float(found.get(name) or 0.0) for name in DROPOUT_FIELDS), default=0.0)
