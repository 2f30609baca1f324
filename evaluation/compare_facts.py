"""What a run or a measured model is made of, as dotted facts, so that a comparison can say in what its arms differ.

Read from run.yaml, the manifest of its dataset, metrics.jsonl, provenance.json and results.json. What cannot be read any more is
said in `unknown`, not guessed. Paths, names and how a run was spread over machines are left out: they do not change a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.compare_inputs import SETTINGS_NAME, Measured, Run, read_run
from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json, sha256_of_file

NOT_THE_MODEL = (
    "name",
    "output_dir",
    "logging",
    "checkpoint",
    "validation",
    "parallel",
    "data.path",
    "data.blend",
    "data.num_workers",
    "data.index_cache",
    "train.threads",
    "train.stop_after_step",
    "train.micro_batch_size",
    "train.recompute",
)
SEEDS = ("train.seed", "data.plugin_seed", "dataset.seed")
BUDGET = ("trained", "dataset.train_bytes", "dataset.train_tokens", "model.parameters", "train.max_steps")
CONSEQUENCES = ("trained", "dataset.train_tokens")  # figures that settings lead to


@dataclass
class Facts:
    """Known facts by dotted name, and sentences on what is not known."""

    known: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def covered(name: str, prefixes: tuple[str, ...] | list[str]) -> bool:
    """Whether `name` is one of `prefixes` or lies below one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def facts_of_run(run: Run, step: int | None = None) -> Facts:
    """Of a run up to `step`, by default the last logged one."""
    facts = Facts()
    if not run.settings:
        facts.unknown.append(f"{run.label}: no {SETTINGS_NAME} in {run.path}, so its settings are not known")
    facts.known |= {name: value for name, value in _flat(run.settings).items() if not covered(name, NOT_THE_MODEL)}
    datasets = _add_datasets(facts, run)
    if run.history is None:
        facts.unknown.append(f"{run.label}: no training step is logged")
        return facts
    steps, tokens = run.history.training["step"], run.history.training["consumed_tokens"]
    reached = len(steps) - 1 if step is None else int((steps <= step).nonzero()[0][-1]) if (steps <= step).any() else 0
    facts.known |= {"trained.steps": int(steps[reached]), "trained.tokens": int(tokens[reached])}
    ratio = bytes_per_token(datasets, run.settings)
    if ratio:
        facts.known["trained.bytes"] = round(float(tokens[reached]) * ratio)
    return facts


def facts_of_measured(one: Measured) -> Facts:
    """Of a model in results.json: how it was measured, and of its run, where its folder and the run's are still there."""
    facts, settings = Facts(), one.source.results["settings"]
    model, versions = one.model, one.source.results["versions"]
    facts.known |= {f"evaluation.{name}": model[name] for name in ("architecture", "tokenizer_sha256") if name in model}
    facts.known |= {f"evaluation.versions.{name}": value for name, value in versions.items() if name in ("sibol", "torch", "transformers")}
    facts.known["evaluation.dtype"] = settings.get("dtype")
    provenance = _provenance_file(one)
    if provenance is None:
        facts.unknown.append(f"{one.label}: no provenance.json beside the weights that were measured, so its training is not known")
        return facts
    facts.known["model.parameters"] = (provenance.get("weights") or {}).get("parameters")
    run = provenance.get("run") or {}
    folder = Path(run.get("folder") or "")
    settings_path = folder / SETTINGS_NAME
    if not settings_path.is_file() or sha256_of_file(settings_path) != run.get("run_yaml_sha256"):
        facts.unknown.append(f"{one.label}: the run folder that its provenance.json names is gone or changed, so settings are not compared")
        return facts
    trained = facts_of_run(read_run(folder, one.label), (provenance.get("source") or {}).get("step"))
    return Facts(trained.known | facts.known, facts.unknown + trained.unknown)


def windows_of(one: Measured) -> dict[str, Any]:
    """How much text the model saw at a time, which may be another in every suite."""
    names = ("context_tokens", "stride_tokens")
    return {f"evaluation.{one.suite['name']}.{name}": one.model[name] for name in names if name in one.model}


def _provenance_file(one: Measured) -> dict[str, Any] | None:
    """The model's provenance.json, when it is still about the weights that were measured."""
    path = Path(one.model["path"]) / "provenance.json"
    known = read_json(path, "provenance") if path.is_file() else None
    measured = (one.model.get("provenance") or {}).get("weights_fingerprint")
    if not isinstance(known, dict) or (known.get("weights") or {}).get("fingerprint") != measured:
        return None
    return known


def datasets_of(run: Run) -> dict[Path, float]:
    """Folders that the run reads, with their weights."""
    data = run.settings.get("data") or {}
    blend = data.get("blend") or {}
    if blend:
        return {Path(path): float(weight) for path, weight in blend.items()}
    return {Path(data["path"]): 1.0} if data.get("path") else {}


def _add_datasets(facts: Facts, run: Run) -> list[tuple[float, Any]]:
    """Facts of the run's datasets; the datasets with their weights, none when one of them cannot be opened."""
    opened = []
    for number, (path, weight) in enumerate(datasets_of(run).items()):
        try:
            info = open_dataset(path)
        except DataError:
            facts.unknown.append(f"{run.label}: the dataset {path} cannot be opened any more, so the bytes it read are not known")
            return []
        opened.append((weight, info))
        manifest, name = info.manifest, f"dataset{f'.{number}' if number else ''}"
        facts.known |= {
            f"{name}.documents": [entry.get("sha256") for entry in manifest.get("inputs", [])],
            f"{name}.tokenizer": info.tokenizer_fingerprint,
            f"{name}.plugin": info.plugin,
            f"{name}.split": manifest.get("split"),
            f"{name}.seed": manifest.get("seed"),
            f"{name}.weight": weight,
            f"{name}.train_bytes": info.splits["train"].bytes,
            f"{name}.train_tokens": info.splits["train"].tokens,
        }
        facts.known |= {f"{name}.plugin_settings.{key}": value for key, value in info.plugin_settings.items()}
    return opened


def bytes_per_token(datasets: list[tuple[float, Any]], settings: Mapping[str, Any]) -> float | None:
    """UTF-8 bytes per training token of a blend; None where tokens are made while training or not all of them carry loss."""
    data = settings.get("data") or {}
    if not datasets or data.get("plugin_mode") == "online" or data.get("task") != "pretrain":
        return None
    total = sum(weight for weight, _ in datasets)
    return sum(weight / total * info.splits["train"].bytes / info.splits["train"].tokens for weight, info in datasets)


def run_bytes_per_token(run: Run) -> float | None:
    """As `bytes_per_token`, of a run's own datasets."""
    return bytes_per_token(_add_datasets(Facts(), run), run.settings)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
