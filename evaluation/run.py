"""One evaluation from folders to results.json: fingerprints, models one after the other, statistics, files.

What is measured is the business of the suite; how the result is shown, of `evaluation.table`.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evaluation.loading import ModelFolder
from evaluation.models import Advance
from evaluation.predictions import open_model
from evaluation.statistics import Interval, check_bootstrap
from evaluation.stored import RESULTS_SCHEMA
from evaluation.suites import SUITES, Items, Settings, Suite, Summary
from nemo_ext.common.errors import ConfigError, OutputExistsError
from nemo_ext.common.files import atomic_folder, read_json, refuse_existing, sha256_of_file, write_json

RESULTS_NAME = "results.json"
ROWS_NAME = "per_document.jsonl"
PACKAGES = ("sibol", "torch", "transformers", "tokenizers", "numpy")
Progress = Callable[[str, int], AbstractContextManager[Advance]]  # (what is scored, bytes in all) -> advance


@contextmanager
def no_progress(description: str, total_bytes: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _: None


@dataclass(frozen=True)
class _Scored:
    """What is kept of a model after it has left memory."""

    description: dict[str, Any]
    scores: Any
    device: str


def evaluate(
    model_dir: Path | str,
    data: Path | str,
    output_dir: Path | str,
    *,
    suite: str = "bits_per_byte",
    baseline_dir: Path | str | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Score the Hugging Face model in `model_dir`, and `baseline_dir` on the same items, and write `output_dir`.

    Writes `results.json` (schema sibol.results/1) and `per_document.jsonl` as one atomic folder and returns the results.
    Everything that can be wrong with paths, data and settings is checked before a model is loaded; one model is in memory
    at a time. Raises the errors of `nemo_ext.common.errors`.
    """
    started_s = time.perf_counter()
    chosen, settings = _choose_suite(suite, settings or Settings())
    output_dir = Path(output_dir)
    _refuse_foreign_output(output_dir, overwrite)
    folders = [open_model(path, chosen) for path in (model_dir, baseline_dir) if path is not None]
    check_bootstrap(settings.resamples, settings.confidence)
    chosen.check(settings, folders)
    items = chosen.read(Path(data), settings)
    scored = [_score(chosen, folder, items, settings, device, progress) for folder in folders]
    summary = chosen.summarise([one.scores for one in scored], settings)
    results = _results(chosen, items, settings, scored, summary)
    results["seconds"] = round(time.perf_counter() - started_s, 3)
    with atomic_folder(output_dir, overwrite) as folder:
        with (folder / ROWS_NAME).open("w", encoding="utf-8") as handle:
            handle.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in summary.rows)
        for name, content in summary.files.items():
            (folder / name).write_bytes(content)
        results["per_document"] = {"file": ROWS_NAME, "sha256": sha256_of_file(folder / ROWS_NAME)}
        results["files"] = sorted(summary.files)
        write_json(folder / RESULTS_NAME, results)
    return results


def _choose_suite(name: str, settings: Settings) -> tuple[Suite, Settings]:
    """The suite, and the settings with what stands after the colon in `--suite NAME:VALUE`."""
    name, colon, value = name.partition(":")
    chosen: Suite = SUITES.get(name)
    if not colon:
        return chosen, settings
    if chosen.argument is None:
        raise ConfigError(f"--suite {name}:{value}: the suite {name} takes nothing after a colon. Write --suite {name}.")
    if chosen.argument in settings.options:
        raise ConfigError(f"--suite {name}:{value} and --set {chosen.argument}= say the same thing. Give one of them.")
    return chosen, replace(settings, options={**settings.options, chosen.argument: value})


def _refuse_foreign_output(output_dir: Path, overwrite: bool) -> None:
    """`--overwrite` replaces a whole folder, so it may only be one that an evaluation wrote."""
    refuse_existing(output_dir, overwrite)
    found = sorted(entry.name for entry in output_dir.iterdir()) if output_dir.is_dir() else []
    stored: Any = read_json(output_dir / RESULTS_NAME, "evaluation results") if RESULTS_NAME in found else None
    own = isinstance(stored, dict) and stored.get("schema") == RESULTS_SCHEMA  # other programs write a results.json, too
    written = {RESULTS_NAME, ROWS_NAME, *stored.get("files", [])} if own else set()
    if output_dir.is_file() or set(found) - written:
        raise OutputExistsError(
            f"{output_dir} was not written by `sibol evaluate` (it holds {', '.join(found[:5]) or 'a file'}) and is not replaced. "
            "Choose another --out."
        )


def _score(suite: Suite, folder: ModelFolder, items: Items, settings: Settings, device: str, progress: Progress) -> _Scored:
    model = suite.load(folder, settings, device)
    description = folder.as_dict() | suite.describe(model, settings)
    with progress(folder.path.name, items.bytes) as advance:
        return _Scored(description, suite.score(model, items, settings, advance), str(model.device))


def _results(suite: Suite, items: Items, settings: Settings, scored: list[_Scored], summary: Summary) -> dict[str, Any]:
    baseline = None
    if len(scored) > 1:
        baseline = {
            "model": scored[1].description,
            "metrics": _intervals(summary.baseline_metrics or {}),
            "references": {name: _intervals(metrics) for name, metrics in (summary.baseline_references or {}).items()},
            "difference": _intervals(summary.comparison or {}),
        }
    return {
        "schema": RESULTS_SCHEMA,
        "suite": {
            "name": suite.name,
            "version": suite.version,
            "primary_metric": suite.primary_metric,
            "lower_is_better": suite.lower_is_better,
        },
        "model": scored[0].description,
        "data": items.as_dict(),
        "settings": asdict(settings) | {"dtype": suite.dtype, "interval": suite.interval},
        "metrics": _intervals(summary.metrics),
        "references": {name: _intervals(metrics) for name, metrics in summary.references.items()},
        "baseline": baseline,
        "domains": summary.domains,
        "warnings": [*items.warnings, *summary.warnings],
        "versions": {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := _version(name))},
        "device": scored[0].device,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _intervals(metrics: dict[str, Interval]) -> dict[str, dict[str, float | None]]:
    """For JSON, which has no infinity: null."""
    finite = {name: interval.as_dict() for name, interval in metrics.items()}
    return {name: {key: None if end is None or math.isinf(end) else end for key, end in ends.items()} for name, ends in finite.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
