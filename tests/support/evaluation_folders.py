"""Run folders and results folders with chosen figures, in the format that `sibol train` and `sibol evaluate` write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evaluation.statistics import Bootstrap
from nemo_ext.common.files import write_json


def digest(value: object) -> str:
    """A digest that differs where `value` does."""
    return hashlib.sha256(repr(value).encode()).hexdigest()


def write_results(
    folder: Path,
    scores: Sequence[float],
    *,
    baseline: Sequence[float] | None = None,
    categories: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    model: str = "model",
    suite: str = "pacute",
    version: int = 1,
    data: str = "items",
    provenance: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A results folder of a suite with one score per item; `changes` replace top-level entries of results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"i{number}", "score": float(score)} for number, score in enumerate(scores)]
    for number, row in enumerate(rows):
        row |= {"category": categories[number]} if categories else {}
        row |= {"cluster": clusters[number]} if clusters else {}
        row |= {"baseline_score": float(baseline[number])} if baseline is not None else {}
    (folder / "per_document.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results: dict[str, Any] = {
        "schema": "sibol.results/1",
        "suite": {"name": suite, "version": version, "primary_metric": "accuracy", "lower_is_better": False},
        "data": {"path": f"/data/{data}", "sha256": digest(data), "documents": len(rows), "bytes": 10 * len(rows), "split": None},
        "settings": {"resamples": 200, "confidence": 0.95, "seed": 1, "score_end_of_document": False, "dtype": "float32"},
        **_part(folder.parent / model, scores, provenance),
        "baseline": None,
        "domains": {},
        "warnings": [],
        "versions": {"python": "3.11", "sibol": "0.1.0", "torch": "2.6"},
        "per_document": {"file": "per_document.jsonl", "sha256": hashlib.sha256((folder / "per_document.jsonl").read_bytes()).hexdigest()},
    }
    if baseline is not None:
        results["baseline"] = _part(folder.parent / "base", baseline, None) | {"difference": {}}
    write_json(folder / "results.json", results | changes)
    return folder


def _part(path: Path, scores: Sequence[float], provenance: dict[str, Any] | None) -> dict[str, Any]:
    columns = np.stack([np.asarray(scores, dtype=np.float64), np.ones(len(scores))], axis=1)
    accuracy = Bootstrap(columns, 200, 0.95, 1).interval(lambda sums: sums[..., 0] / sums[..., 1]).as_dict()
    return {
        "model": {
            "path": str(path),
            "architecture": "Qwen2ForCausalLM",
            "weights_sha256": digest(list(scores)),
            "tokenizer_sha256": digest("tokenizer"),
            "provenance": provenance,
            "context_tokens": 32,
            "stride_tokens": 32,
        },
        "metrics": {"accuracy": accuracy},
        "references": {"uniform": {"accuracy": {"value": 0.25, "low": None, "high": None}}},
    }


def write_run(folder: Path, *, steps: int = 20, resumed: int | None = None, final_loss: float = 3.0, **settings: Any) -> Path:
    """A run folder whose loss falls to about `final_loss`; `settings` are dotted names with `__` for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "name": folder.name,
        "model": {"preset": "tiny"},
        "data": {"path": str(folder.parent / "dataset"), "task": "pretrain", "plugin_mode": "offline"},
        "train": {"max_steps": 20, "seed": 1},
        "optimizer": {"learning_rate": 0.001},
    }
    for name, value in settings.items():
        section, _, key = name.partition("__")
        config[section][key] = value
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    noise = np.random.default_rng(steps).normal(0, 0.05, steps + 1)
    lines: list[dict[str, Any]] = [{"step": 0, "event": "start"}]
    for step in range(1, steps + 1):
        line = {"step": step, "loss": final_loss + 4 * 0.8**step + noise[step], "learning_rate": 1e-3 * min(1, step / 4)}
        speed = {"consumed_tokens": 100 * step, "grad_norm": 1 + abs(noise[step]), "tokens_per_s": 900.0, "wall_s": float(step)}
        lines.append(line | speed)
        if step % 5 == 0:
            lines.append({"step": step, "validation_loss": line["loss"] + 0.1, "validation_bits_per_byte": line["loss"] / 2})
        if step == resumed:
            lines.append({"step": step, "event": "resume"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
