"""The contract of an evaluation suite, and the registry of suites.

A suite says how its data are read, how a model scores them, and what the scores amount to. Loading models, the second
model to compare with, files and tables are the business of `evaluation.run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nemo_ext.common.registry import Registry

if TYPE_CHECKING:  # names can be listed without torch
    from evaluation.loading import ModelFolder
    from evaluation.models import Advance
    from evaluation.statistics import Interval

SUITES = Registry(
    "suite",
    "sibol.suites",
    {
        "addition": "evaluation.suites.addition:SUITE",
        "bits_per_byte": "evaluation.suites.bits_per_byte:SUITE",
        "cloze": "evaluation.suites.cloze:SUITE",
        "hierarchical": "evaluation.suites.hierarchical:SUITE",
        "langgame": "evaluation.suites.langgame:SUITE",
        "lm_eval": "evaluation.suites.lm_eval:SUITE",
        "minimal_pairs": "evaluation.suites.minimal_pairs:SUITE",
        "multiple_choice": "evaluation.suites.multiple_choice:SUITE",
        "ner": "evaluation.suites.ner:SUITE",
        "pacute": "evaluation.suites.pacute:SUITE",
        "survey": "evaluation.suites.survey:SUITE",
        "throughput": "evaluation.suites.throughput:SUITE",
    },
)


@dataclass(frozen=True)
class Settings:
    """What a user may choose. Tokens are the tokens of the model in question; None means the default stated in the option's help.

    options: those of the suite alone, name -> value as given (`evaluation.options.read_options` reads them).
    """

    split: str | None = None
    text_field: str = "text"
    context_tokens: int | None = None
    stride_tokens: int | None = None
    score_end_of_document: bool = False
    batch_size: int | None = None
    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 1234
    options: Mapping[str, str] = field(default_factory=dict)


class Items(Protocol):
    """Checked data of a suite: how many items and bytes there are, and what results.json says about them."""

    documents: int
    bytes: int
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Path, digest and counts."""
        ...


@dataclass(frozen=True)
class Summary:
    """What the scores amount to.

    metrics: of the model. references: name of a trivial model with the same vocabulary -> its metrics. Both also of the
    baseline model, and the comparison with it: None without a baseline. domains: per domain, as metrics. rows: one JSON object
    per item, with its `id`, its `score` (or `correct`, 0 to 1, or `bits` and `bytes`), the same with `baseline_` before it where
    there is a baseline, and a `category` if it has one. warnings: what makes the numbers doubtful. files: name -> content of
    what is written beside results.json, a plot for example.
    """

    metrics: dict[str, Interval]
    references: dict[str, dict[str, Interval]]
    rows: list[dict[str, Any]]
    baseline_metrics: dict[str, Interval] | None = None
    baseline_references: dict[str, dict[str, Interval]] | None = None
    comparison: dict[str, Interval] | None = None
    domains: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


class Suite(Protocol):
    """One evaluation. `version` rises whenever the same model and data would get another score.

    reads_predictions: whether a file of predictions may stand in the place of a model (`evaluation.predictions`).

    `evaluation.suites.base.SuiteDefaults` has `argument`, `reads_predictions`, `interval`, `dtype`, `check`, `load` and `describe`
    for most suites.
    """

    name: str
    version: int
    primary_metric: str
    lower_is_better: bool
    argument: str | None
    reads_predictions: bool
    interval: str  # how intervals are made, and over what
    dtype: str  # in which numbers models compute

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse, before data are read, what settings or models do not allow."""
        ...

    def read(self, path: Path, settings: Settings) -> Items:
        """Open and check all data before a model is loaded."""
        ...

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> Any:
        """The model that `score` is given, with a `device`."""
        ...

    def describe(self, model: Any, settings: Settings) -> dict[str, Any]:
        """What shapes the scores beyond the files of the model, for results.json."""
        ...

    def score(self, model: Any, items: Any, settings: Settings, advance: Advance) -> Any:
        """Scores of every item by one model; `advance` is told the bytes that are done."""
        ...

    def summarise(self, scores: Sequence[Any], settings: Settings) -> Summary:
        """Metrics of the scores of the model and, if there are two, of the baseline."""
        ...
