"""Other layouts of the same run: those that fit, the fastest first, and the nearest one to a layout that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from jobs.plan.duration import Stated
from jobs.plan.estimate import Plan, plan_model
from jobs.plan.resources import Resources
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig

RECOMPUTE = ("none", "selective", "full")
LARGEST_MICRO_BATCH = 64
SEARCHED = {"parallel": ("tp", "pp", "sequence_parallel"), "train": ("micro_batch_size", "recompute")}


@dataclass(frozen=True)
class Found:
    """A layout that fits: the settings to change, as overrides, and its plan."""

    changes: tuple[str, ...]
    plan: Plan

    @property
    def step_s(self) -> float:
        assert self.plan.speed is not None, "layouts are searched on GPUs only"
        return self.plan.speed.step_s


def search(plan: Plan, stated: Stated) -> list[Found]:
    """Every layout on a plan's GPUs that fits, the fastest first; of two alike the one with fewer settings changed.

    A stated speed is that of the plan's own layout; the others' are in proportion. Raises ConfigError without GPUs.
    """
    if not plan.asked.gpus:
        raise ConfigError(f"Layouts are compared on GPUs, and site {plan.asked.site.name} has none. Choose another --site.")
    found = _fitting(plan, plan.asked, _in_proportion(plan, stated))
    return sorted(found, key=lambda layout: (float(f"{layout.step_s:.3g}"), len(layout.changes), layout.step_s))


def nearest_fitting(plan: Plan, stated: Stated) -> Found | None:
    """On a plan's GPUs, or on the fewest nodes more that hold the run: the layout with the fewest settings changed, then the fastest."""
    asked, factor = plan.asked, _in_proportion(plan, stated)
    for nodes in _node_counts(asked):
        whole = nodes != asked.nodes or nodes == 1
        for more in [asked] * (nodes == asked.nodes) + [replace(asked, nodes=nodes, ranks_per_node=asked.site.node.gpus)] * whole:
            found = list(_fitting(plan, more, factor))
            if found:
                return min(found, key=lambda layout: (len(layout.changes), layout.step_s))
    return None


def smallest_peak_bytes(plan: Plan, nodes: int) -> int | None:
    """Memory of the fullest GPU under the layout that needs least on so many whole nodes; None where no layout divides the run."""
    asked = replace(plan.asked, nodes=nodes, ranks_per_node=plan.asked.site.node.gpus)
    return min((found.fullest.peak_bytes for _, found in _layouts(plan, asked, Stated())), default=None)


def _in_proportion(plan: Plan, stated: Stated) -> Stated:
    """The stated speed as a factor on the modelled one, which holds for other layouts too."""
    if stated == Stated():
        return stated
    modelled = plan_model(plan.config, plan.architecture, plan.data, plan.asked, Stated()).speed
    assert plan.speed is not None and modelled is not None
    return Stated(factor=plan.speed.step_s / modelled.step_s)


def _node_counts(asked: Resources) -> Iterator[int]:
    """As many nodes as asked for, then 2, 3, 4, 6, 8, 12 times as many and so on, up to what the site has."""
    yield asked.nodes
    factor = 2
    while asked.nodes * factor <= asked.site.node.count:
        yield asked.nodes * factor
        if asked.nodes * factor * 3 // 2 <= asked.site.node.count:
            yield asked.nodes * factor * 3 // 2
        factor *= 2


def _fitting(plan: Plan, asked: Resources, stated: Stated) -> Iterator[Found]:
    for config, candidate in _layouts(plan, asked, stated):
        if candidate.fits:
            yield Found(_changes(plan.config, config), candidate)


def _layouts(plan: Plan, asked: Resources, stated: Stated) -> Iterator[tuple[RunConfig, Plan]]:
    for config in _candidates(plan.config, asked):
        try:
            yield config, plan_model(config, plan.architecture, plan.data, asked, stated)
        except ConfigError:  # does not divide heads, layers or vocabulary
            continue


def _candidates(config: RunConfig, asked: Resources) -> Iterator[RunConfig]:
    """Every layout to try: tp within a node, pp over what is left, micro batches, recomputation."""
    cp, batch = config.parallel.cp, config.train.global_batch_size
    for tp, micro_batch, recompute in product(_powers(asked.ranks_per_node), _powers(LARGEST_MICRO_BATCH), RECOMPUTE):
        for pp in range(1, asked.ranks // (tp * cp) + 1):
            if asked.ranks % (tp * pp * cp) or batch % (micro_batch * (asked.ranks // (tp * pp * cp))):
                continue
            parallel = replace(config.parallel, tp=tp, pp=pp, sequence_parallel=tp > 1)
            yield replace(config, parallel=parallel, train=replace(config.train, micro_batch_size=micro_batch, recompute=recompute))


def _changes(old: RunConfig, new: RunConfig) -> tuple[str, ...]:
    """What makes `new` of `old`, as overrides."""
    return tuple(
        f"{section}.{name}={str(getattr(getattr(new, section), name)).lower()}"
        for section, names in SEARCHED.items()
        for name in names
        if getattr(getattr(new, section), name) != getattr(getattr(old, section), name)
    )


def _powers(most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2
