"""What a user names on the command line of `sibol compare` and `sibol report`: run folders and results, each with a label.

A label is the name of the folder unless it is given as LABEL=PATH; what shares a label is one arm, its members differ in seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from evaluation.history import METRICS_NAME, NoStepsError, RunHistory, read_history
from evaluation.stored import Part, StoredResults, read_results
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import sha256_of_file

SETTINGS_NAME, DONE_NAME = "run.yaml", "DONE"


@dataclass(frozen=True)
class Measured:
    """One model in one results.json, under the label of its arm."""

    label: str
    source: StoredResults
    part: Part

    @property
    def results(self) -> dict[str, Any]:
        """The part of results.json that is about this model."""
        found: dict[str, Any] = self.source.results if self.part == "model" else self.source.results["baseline"]
        return found

    @property
    def model(self) -> dict[str, Any]:
        """Path and fingerprints of the model."""
        model: dict[str, Any] = self.results["model"]
        return model

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Metrics with their intervals."""
        metrics: dict[str, dict[str, float | None]] = self.results["metrics"]
        return metrics

    @property
    def suite(self) -> dict[str, Any]:
        """Name, version, primary metric and its direction."""
        suite: dict[str, Any] = self.source.results["suite"]
        return suite


@dataclass(frozen=True)
class Run:
    """A run folder. `history` is None while no step is logged; `settings` is empty without a run.yaml."""

    label: str
    path: Path
    history: RunHistory | None
    settings: dict[str, Any]
    settings_sha256: str | None

    @property
    def state(self) -> str:
        """Whether it is done, as far as the folder says."""
        if (self.path / DONE_NAME).is_file():
            return "finished"
        steps = self.settings.get("train", {}).get("max_steps")
        reached = int(self.history.training["step"][-1]) if self.history else 0
        planned = f" of {steps:,}" if isinstance(steps, int) else ""
        return f"not finished, {reached:,}{planned} steps"


@dataclass
class Inputs:
    """Everything that was named."""

    measured: list[Measured] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


def read_inputs(arguments: Sequence[str | Path]) -> Inputs:
    """Read run folders, results.json files and their folders; a baseline of a results.json stands before its model.

    Raises DataError for what is neither, or is damaged.
    """
    found, named, results = Inputs(), [], []
    for argument in arguments:
        label, path = _split_label(argument)
        if path.is_file() or (path / "results.json").is_file():
            results.append((label, read_results(path)))
        elif (path / SETTINGS_NAME).is_file() or (path / METRICS_NAME).is_file():
            named.append((label, path))
        else:
            problem = "is no run folder (run.yaml, metrics.jsonl) and holds no results.json" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {problem}. Give folders that `sibol train` or `sibol evaluate` wrote, or LABEL=FOLDER.")
    found.measured = _measured(results)
    labels = _distinct_names([path.absolute() for _, path in named])
    found.runs = [read_run(path, label or labels[path.absolute()]) for label, path in named]
    return found


def _split_label(argument: str | Path) -> tuple[str | None, Path]:
    """A path that is there is a path, whatever characters it has."""
    text = str(argument)
    label, separator, path = text.partition("=")
    if separator and label and not Path(text).exists():
        return label, Path(path)
    return None, Path(text)


def _distinct_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The folder's name, with as many of the folders around it as no other folder shares."""
    names = {}
    for path in set(paths):
        others, depth = [other.parts for other in set(paths) if other != path], 1
        while any(parts[-depth:] == path.parts[-depth:] for parts in others):
            depth += 1
        names[path] = str(Path(*path.parts[-depth:]))
    return names


def _measured(results: Sequence[tuple[str | None, StoredResults]]) -> list[Measured]:
    """Models and baselines; a baseline that was measured before, or is the model of other results, is not listed again."""
    found: list[Measured] = []
    explicit: list[bool] = []
    for label, one in results:
        others = [Measured("", other, "model") for _, other in results if other is not one]
        if one.results["baseline"] and not _known([*found, *others], one):
            found.append(Measured("", one, "baseline"))
            explicit.append(False)
        found.append(Measured(label or "", one, "model"))
        explicit.append(label is not None)
    labels = _distinct_names([Path(one.model["path"]) for one in found])
    return [one if named else replace(one, label=labels[Path(one.model["path"])]) for one, named in zip(found, explicit, strict=True)]


def _known(found: Sequence[Measured], one: StoredResults) -> bool:
    weights = one.results["baseline"]["model"]["weights_sha256"]
    return any(other.model["weights_sha256"] == weights and other.source.measurement() == one.measurement() for other in found)


def read_run(path: Path, label: str) -> Run:
    """The settings and the figures of a run, of which each may be missing. Raises DataError for damaged ones."""
    settings_path, history = path / SETTINGS_NAME, None
    settings: Any = {}
    if settings_path.is_file():
        try:
            settings = yaml.safe_load(settings_path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{settings_path} is not valid YAML ({error}). Restore it; `sibol train` writes it.") from None
        if not isinstance(settings, dict):
            raise DataError(f"{settings_path} holds {type(settings).__name__}, expected settings as `sibol train` writes them. Restore it.")
    if (path / METRICS_NAME).is_file():
        try:
            history = read_history(path)
        except NoStepsError:
            history = None  # said by `state`
    digest = sha256_of_file(settings_path) if settings_path.is_file() else None
    return Run(label, path, history, settings, digest)
