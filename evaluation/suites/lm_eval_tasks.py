"""Tasks of lm-evaluation-harness: loaded without a network, described for results.json.

The harness builds prompts and requests; this module sees to it that nothing is downloaded, and knows which of a task's metrics is a
score per document.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.suites.lm_eval_index import load_tasks
from nemo_ext.common.errors import ConfigError, DataError

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
PREFERRED_METRICS = ("acc", "exact_match")
# Where a task's data lie and how it is called are no part of what is measured.
NOT_IN_DIGEST = ("task", "task_alias", "tag", "dataset_path", "dataset_name", "dataset_kwargs", "metadata")


@dataclass(frozen=True)
class Tasks:
    """Loaded tasks by name, the metric of each that is scored, and what results.json says of them (`described`)."""

    path: Path
    tasks: dict[str, Any]
    metrics: dict[str, str]
    described: dict[str, dict[str, Any]]
    documents: int
    bytes: int
    sha256: str
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "path": str(self.path.absolute()),
            "kind": "lm-evaluation-harness tasks",
            "split": None,
            "sha256": self.sha256,
            "documents": self.documents,
            "bytes": self.bytes,
            "lm_eval": version("lm_eval"),
            "tasks": self.described,
        }


@contextmanager
def offline() -> Iterator[None]:
    """No downloads by datasets and huggingface_hub, which read the environment only when they are first imported.

    The harness is kept from a line on stderr for every request that it cuts: they are counted, see `HarnessModel`.
    """
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.utils import reset_sessions

    loggers = [logging.getLogger(f"lm_eval.{name}") for name in ("models.huggingface", "tasks._index")]
    levels = [logger.level for logger in loggers]
    environment = {name: os.environ.get(name) for name in OFFLINE_VARIABLES}
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    reset_sessions()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        for name, value in environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        reset_sessions()


def open_tasks(path: Path, names: Sequence[str], metric: str | None, num_fewshot: int | None, limit: int | None) -> Tasks:
    """Load the tasks, groups or tags called `names` of the YAML files below `path`, or of the harness itself, with their data.

    Raises ConfigError for unknown names and settings that a task does not take, DataError for data that are not on this machine.
    """
    if not path.is_dir():
        raise DataError(f"--data {path} is not a folder. Expected the folder with the YAML files of the tasks.")
    with offline():
        tasks = load_tasks(path, names)
        for name, task in tasks.items():
            _set_fewshot(name, task, num_fewshot)
        metrics = {name: _choose_metric(name, task, metric) for name, task in tasks.items()}
        digest, documents, size = hashlib.sha256(), 0, 0
        described = {}
        for name, task in tasks.items():
            count, read = _survey(task, limit, digest)
            described[name] = _describe(task, metrics[name]) | {"documents": count, "bytes": read, "documents_in_all": len(task.eval_docs)}
            documents, size = documents + count, size + read
    cut = [name for name, entry in described.items() if entry["documents"] < entry["documents_in_all"]]
    warnings = (f"--set limit={limit} leaves out documents of {', '.join(cut)}.",) if cut else ()
    return Tasks(path, tasks, metrics, described, documents, size, digest.hexdigest(), warnings)


def _set_fewshot(name: str, task: Any, num_fewshot: int | None) -> None:
    """As the harness does it, but a number that it would silently ignore is refused."""
    own = task.get_config("num_fewshot")
    if num_fewshot is not None and own == 0 != num_fewshot:
        raise ConfigError(
            f"--set num_fewshot={num_fewshot}: task {name} fixes `num_fewshot: 0`, which lm-evaluation-harness never overrides. "
            "Leave the option out, or that line out of a YAML file of your own."
        )
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"Task {name} runs code that models write, or needs images or sound. Neither is supported. Leave it out.")
    task.set_config("num_fewshot", num_fewshot if num_fewshot is not None else own or 0)


def _choose_metric(name: str, task: Any, metric: str | None) -> str:
    """The metric, without a filter, whose mean over documents is the task's score."""
    from lm_eval.api.metrics import mean

    better = task.higher_is_better()
    scores = [key for key, aggregate in task.aggregation().items() if aggregate is mean and better.get(key, True)]
    wanted = metric.partition(",")[0] if metric else None
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise ConfigError(
            f"Task {name} measures the likelihood of texts, not right and wrong answers. "
            "Use --suite bits_per_byte on its texts, which gives the harness's bits_per_byte with an interval."
        )
    if not scores or (wanted and wanted not in scores):
        raise ConfigError(
            f"Task {name} has no score per document{f' called {wanted}' if wanted else ''} that is averaged and better when higher. "
            f"It has: {', '.join(scores) or 'none'}. Choose one with --set metric=, or leave the task out."
        )
    return wanted or next((key for key in PREFERRED_METRICS if key in scores), scores[0])


def _survey(task: Any, limit: int | None, digest: Any) -> tuple[int, int]:
    """Documents and bytes (as JSON) that will be scored; `digest` takes them up, with what makes prompts of them."""
    config = {key: value for key, value in task.dump_config().items() if key not in NOT_IN_DIGEST}
    digest.update(json.dumps([task.task_name, config], sort_keys=True, default=_named).encode())
    documents = task.eval_docs
    count = len(documents) if limit is None else min(limit, len(documents))
    size = 0
    for number in range(count):
        line = json.dumps(documents[number], ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
        size += len(line)
        digest.update(len(line).to_bytes(8, "little"))
        digest.update(line)
    return count, size


def _named(value: Any) -> str:
    """What JSON does not know; of a function its name alone, because its address in memory is another in every process."""
    return str(getattr(value, "__qualname__", value))


def _describe(task: Any, metric: str) -> dict[str, Any]:
    number = task.VERSION if isinstance(task.VERSION, (int, float, str)) else None
    return {"version": number, "output_type": task.OUTPUT_TYPE, "metric": metric, "num_fewshot": task.get_config("num_fewshot")}
