"""Tasks of lm-evaluation-harness, run by the harness itself on a causal model in fp32, offline.

`--suite lm_eval:TASK,...` names tasks, groups or tags of the YAML files below `--data`, or of the harness, whose data then stand in
`--data` as TASK/SPLIT.jsonl (`evaluation.suites.lm_eval_index`) or in the local cache of datasets. Prompts, requests and answers are
the harness's; what is added is what its numbers lack:

- One score per document with an interval by bootstrap over documents, and the paired difference from a baseline model.
- Options that tie for the highest score share the point, 1/k each. The harness gives it to the first of them, so that a model whose
  logits are all equal has accuracy 1 where the right answer stands first (BLiMP). Without ties both are the same number; the
  harness's own stands beside ours, with its standard error.
- A log-likelihood that is not finite fails the run. Requests that the harness cuts to the model's context are counted.
- `uniform`: the expected score of guessing among each document's options.

accuracy is the mean over all documents, task_mean over the tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from evaluation.loading import ModelFolder, check_causal, choose_context, choose_device, load_pretrained
from evaluation.models import Advance
from evaluation.statistics import Bootstrap, FloatArray, Interval
from evaluation.suites import Settings, Summary
from evaluation.suites.base import SuiteDefaults
from evaluation.suites.lm_eval_tasks import Tasks, offline, open_tasks
from nemo_ext.common.errors import ConfigError, DataError

FEW_DOCUMENTS = 20  # with fewer, a percentile bootstrap is too narrow
LENGTHS = {"acc": lambda option: 1, "acc_norm": len, "acc_bytes": lambda option: len(option.encode())}
REQUESTS = {"multiple_choice": "loglikelihood"}  # output type -> kind of request, where their names differ


@dataclass(frozen=True)
class Options:
    """Which tasks, and how. metric: whose mean is the score (default: acc, else exact_match, else the task's first)."""

    tasks: tuple[str, ...] = ()
    num_fewshot: int | None = None
    limit: int | None = None
    metric: str | None = None


@dataclass(frozen=True)
class DocumentResult:
    """Score of one document: ours, the harness's, and of a guess (None where nothing is chosen). `tied`: several options were best."""

    task: str
    number: int
    score: float
    harness: float
    chance: float | None
    tied: bool


@dataclass(frozen=True)
class HarnessScores:
    """Scores of all documents by one model, and what the harness says of each task."""

    documents: list[DocumentResult]
    tasks: dict[str, dict[str, Any]]
    harness: dict[str, dict[str, dict[str, float | None]]]
    truncated: int


class LmEval(SuiteDefaults):
    """The suite, see the module's text for the definition."""

    name = "lm_eval"
    version = 1
    primary_metric = "accuracy"
    lower_is_better = False
    options = Options
    argument = "tasks"
    unused = MappingProxyType({**SuiteDefaults.unused, "split": "--split", "text_field": "--text-field"})  # the task files say both

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse a run without tasks, and numbers that make no sense."""
        super().check(settings, folders)
        options = self.chosen(settings)
        if not options.tasks:
            raise ConfigError("The suite lm_eval has no tasks. Name those of the YAML files in --data: --suite lm_eval:TASK,TASK.")
        if (options.limit is not None and options.limit < 1) or (options.num_fewshot or 0) < 0:
            raise ConfigError(f"Expected --set limit= of at least 1 and num_fewshot= of at least 0, found {options}.")

    def read(self, path: Path, settings: Settings) -> Tasks:
        """The tasks with their data."""
        options = self.chosen(settings)
        return open_tasks(path, options.tasks, options.metric, options.num_fewshot, options.limit)

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> Any:
        """The harness's model class around the model of `folder`."""
        from evaluation.suites.lm_eval_model import HarnessModel

        model, tokenizer = load_pretrained(folder, "AutoModelForCausalLM", choose_device(device))
        check_causal(model, folder.path)
        with offline():
            return HarnessModel(model, tokenizer, choose_context(folder, settings.context_tokens), settings.batch_size)

    def score(self, model: Any, items: Tasks, settings: Settings, advance: Advance) -> HarnessScores:
        """What the harness finds, document by document."""
        import torch
        from lm_eval.evaluator import evaluate

        sizes: dict[str, int] = {}
        for name, task in items.tasks.items():
            _check_room(name, task, model)
            task.set_fewshot_seed(settings.seed)
            kind = REQUESTS.get(task.OUTPUT_TYPE, task.OUTPUT_TYPE)
            sizes[kind] = sizes.get(kind, 0) + items.described[name]["bytes"]
        model.begin(sizes, advance)
        torch.manual_seed(settings.seed)  # for tasks that sample
        with offline():
            try:
                found = evaluate(model, {"tasks": items.tasks}, limit=self.chosen(settings).limit, bootstrap_iters=0, log_samples=True)
            except torch.OutOfMemoryError as error:
                raise ConfigError(f"No memory left on {model.device} ({error}). Choose a smaller --batch-size or --context.") from None
        documents, tasks = [], {}
        for name, task in items.tasks.items():
            metric, samples = _samples(name, found["samples"][name], items.metrics[name], self.chosen(settings).metric)
            documents += [_document(name, task, metric.partition(",")[0], sample) for sample in samples]
            tasks[name] = items.described[name] | {"metric": metric}
        return HarnessScores(documents, tasks, {name: _harness_figures(found, name) for name in tasks}, model.truncated)

    def summarise(self, scores: Sequence[HarnessScores], settings: Settings) -> Summary:
        """Accuracy, and against a second model the paired difference (positive: the model is better than the baseline)."""
        model, *others = scores
        baseline = others[0] if others else None
        references = _references(model)
        return Summary(
            metrics=_metrics(_columns(model), settings),
            references=references,
            baseline_metrics=_metrics(_columns(baseline), settings) if baseline else None,
            baseline_references=references if baseline else None,
            comparison=_comparison(model, baseline, settings) if baseline else None,
            domains=_domains(model, settings),
            rows=_rows(model, baseline),
            warnings=_warnings(scores),
        )


SUITE = LmEval()


def _check_room(name: str, task: Any, model: Any) -> None:
    if task.OUTPUT_TYPE == "generate_until":
        from lm_eval.models.utils import normalize_gen_kwargs

        wanted = normalize_gen_kwargs(task.get_config("generation_kwargs") or {}, model.max_gen_toks)["max_gen_toks"]
        if wanted >= model.context:
            raise ConfigError(
                f"Task {name} has {wanted} tokens written, which leaves no room for a prompt in a context of {model.context}. "
                "Choose a larger --context, or fewer max_gen_toks in the task's generation_kwargs."
            )


def _samples(name: str, samples: Sequence[dict[str, Any]], metric: str, wanted: str | None) -> tuple[str, list[dict[str, Any]]]:
    """`metric,filter` and the samples of that filter: the one that was asked for, else the task's first."""
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    chosen = wanted.partition(",")[2] if wanted and "," in wanted else filters[0]
    kept = [sample for sample in samples if sample["filter"] == chosen]
    if not kept or not all(isinstance(sample.get(metric), (bool, int, float)) for sample in kept):
        raise DataError(
            f"Task {name} gives its documents no number called {metric},{chosen}; it has the filters {', '.join(filters)}. "
            "Choose another with --set metric=NAME,FILTER."
        )
    return f"{metric},{chosen}", sorted(kept, key=lambda sample: int(sample["doc_id"]))


def _document(name: str, task: Any, metric: str, sample: dict[str, Any]) -> DocumentResult:
    harness = float(sample[metric])
    if task.OUTPUT_TYPE != "multiple_choice" or callable(task.get_config("process_results")):
        return DocumentResult(name, sample["doc_id"], harness, harness, None, False)
    options = task.doc_to_choice(sample["doc"])
    gold = _gold(task, sample["doc"], options)
    chance = len(gold) / len(options)
    if metric not in LENGTHS:
        return DocumentResult(name, sample["doc_id"], harness, harness, chance, False)
    # As ConfigurableTask.process_results, whose argmax takes the first of the best.
    scores = np.array([response[0] for response in sample["filtered_resps"]][: len(options)])
    scores = scores / np.array([LENGTHS[metric](option) for option in options], dtype=np.float64)
    best = set(np.flatnonzero(scores == scores.max()).tolist())
    return DocumentResult(name, sample["doc_id"], len(gold & best) / len(best), harness, chance, len(best) > 1)


def _gold(task: Any, document: Any, options: Sequence[str]) -> set[int]:
    """Numbers of the right options, as ConfigurableTask.process_results reads them. Raises DataError when there is none."""
    target = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    targets = target if isinstance(target, list) else [target]
    found = {options.index(one) if isinstance(one, str) and one in options else one for one in targets}
    gold = {one for one in found if isinstance(one, int) and 0 <= one < len(options)}
    if not gold:
        raise DataError(f"Task {task.task_name} has a document whose answer {target!r} is none of its options {options!r}. Mend the data.")
    return gold


def _harness_figures(found: Any, name: str) -> dict[str, dict[str, float | None]]:
    """All figures of a task as the harness computes them; a standard error for those that are means over documents."""
    from lm_eval.api.metrics import mean_stderr

    figures: dict[str, dict[str, float | None]] = {}
    for key, value in found["results"][name].items():
        metric, comma, chosen = key.partition(",")
        if comma and isinstance(value, (int, float)):
            values = [sample.get(metric) for sample in found["samples"][name] if sample["filter"] == chosen]
            a_mean = len(values) > 1 and all(isinstance(one, (bool, int, float)) for one in values)
            figures[key] = {"value": float(value), "stderr": float(mean_stderr(values)) if a_mean else None}
    return figures


def _columns(scores: HarnessScores) -> FloatArray:
    """Per document: score, score and weight when every task weighs the same, 1."""
    sizes = Counter(document.task for document in scores.documents)
    weights = np.array([1 / sizes[document.task] for document in scores.documents])
    points = np.array([document.score for document in scores.documents])
    return np.stack([points, points * weights, weights, np.ones(len(points))], axis=1)


def _metrics(columns: FloatArray, settings: Settings) -> dict[str, Interval]:
    bootstrap = Bootstrap(columns, settings.resamples, settings.confidence, settings.seed)
    return {
        "accuracy": bootstrap.interval(lambda sums: sums[..., 0] / sums[..., -1]),
        "task_mean": bootstrap.interval(lambda sums: sums[..., 1] / sums[..., 2]),
    }


def _comparison(model: HarnessScores, baseline: HarnessScores, settings: Settings) -> dict[str, Interval]:
    columns, other = _columns(model), _columns(baseline)
    columns[:, :2] -= other[:, :2]
    return _metrics(columns, settings)


def _references(scores: HarnessScores) -> dict[str, dict[str, Interval]]:
    """Guessing, where all documents have options to guess from."""
    chances = [document.chance for document in scores.documents]
    known = [chance for chance in chances if chance is not None]
    return {"uniform": {"accuracy": Interval(sum(known) / len(known))}} if known and len(known) == len(chances) else {}


def _domains(scores: HarnessScores, settings: Settings) -> dict[str, dict[str, Any]]:
    table = {}
    for name, described in scores.tasks.items():
        part = HarnessScores([document for document in scores.documents if document.task == name], {}, {}, 0)
        chance = _references(part)
        table[name] = {
            "documents": len(part.documents),
            "tied": sum(document.tied for document in part.documents),
            "uniform": chance["uniform"]["accuracy"].value if chance else None,
            "accuracy": _metrics(_columns(part), settings)["accuracy"].as_dict(),
            "task": described,
            "harness": scores.harness[name],
        }
    return table


def _rows(model: HarnessScores, baseline: HarnessScores | None) -> list[dict[str, Any]]:
    rows = []
    for number, document in enumerate(model.documents):
        row = {
            "id": f"{document.task}/{document.number}",
            "category": document.task,
            "correct": document.score,
            "harness": document.harness,
        }
        if document.chance is not None:
            row["chance"] = document.chance
        if baseline:
            row["baseline_correct"] = baseline.documents[number].score
        rows.append(row)
    return rows


def _warnings(scores: Sequence[HarnessScores]) -> list[str]:
    found = []
    if len(scores[0].documents) < FEW_DOCUMENTS:
        found.append(f"The intervals rest on {len(scores[0].documents)} documents; with fewer than {FEW_DOCUMENTS} they are too narrow.")
    for label, one in zip(("model", "baseline"), scores, strict=False):
        tied = [document for document in one.documents if document.tied]
        if tied:
            gained = sum(document.harness - document.score for document in tied) / len(one.documents)
            found.append(
                f"The {label} has options that tie in {len(tied)} of {len(one.documents)} documents; they share the point, where "
                f"lm-evaluation-harness takes the first (its accuracy is {gained:+.3g} from ours)."
            )
        if one.truncated:
            found.append(f"{one.truncated} requests to the {label} were cut on the left to fit its context of tokens.")
    return found
