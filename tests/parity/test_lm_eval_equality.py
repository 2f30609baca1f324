"""Our figures and lm-evaluation-harness's on the same local task files and the same tiny model are equal, document by document."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evaluation.run import evaluate
from evaluation.suites import Settings
from tests.support.harness_tasks import CHOICES, ROLLING, choice_documents, write_task
from tests.support.tiny_language_models import TEXTS, save_tiny_qwen2

CONTEXT = 32  # shorter than the longest text
EXACT = 1e-6  # relative; fp32 sums of batches of different shapes
TASKS = ["sibol_choices", "sibol_rolling"]


@pytest.fixture(scope="module", params=[False, True], ids=["eos", "bos"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the harness, with its own loading of the folder, finds, and where folder and tasks are."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("equality")
    model = save_tiny_qwen2(folder / "model", context=CONTEXT, with_bos=request.param)
    write_task(folder / "tasks", "sibol_choices", CHOICES, choice_documents())
    write_task(folder / "tasks", "sibol_rolling", ROLLING, [{"text": text} for text in TEXTS])
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    results = lm_eval.simple_evaluate(
        "hf", f"pretrained={model},dtype=float32", TASKS, device="cpu", batch_size=3, task_manager=manager, bootstrap_iters=10
    )
    return {"folder": folder, "model": model, "results": results["results"], "samples": results["samples"]}


def ours(found: dict[str, Any], suite: str, data: Path, **options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out = found["folder"] / suite
    settings = Settings(resamples=50, options=options)
    done: list[tuple[int, list[float]]] = []

    @contextmanager
    def progress(_: str, total: int) -> Iterator[Callable[[float], None]]:
        done.append((total, []))
        yield done[-1][1].append

    results = evaluate(found["model"], data, out, suite=suite, settings=settings, device="cpu", overwrite=True, progress=progress)
    for total, parts in done:
        assert sum(parts) == pytest.approx(total)  # the bar ends where it should
        assert len(parts) > 1 or suite != "lm_eval"  # and moves, where the harness does the work
    return results, [json.loads(line) for line in (out / "per_document.jsonl").open(encoding="utf-8")]


def test_bits_per_byte_is_the_harnesss_for_documents_shorter_and_longer_than_the_context(found: dict[str, Any]) -> None:
    results, rows = ours(found, "bits_per_byte", found["folder"] / "tasks" / "sibol_rolling.jsonl")
    theirs = [float(sample["filtered_resps"][0]) for sample in found["samples"]["sibol_rolling"]]
    assert [-row["bits"] * math.log(2) for row in rows] == pytest.approx(theirs, rel=EXACT)
    assert max(row["tokens"] for row in rows) > CONTEXT > min(row["tokens"] for row in rows)
    assert results["metrics"]["bits_per_byte"]["value"] == pytest.approx(found["results"]["sibol_rolling"]["bits_per_byte,none"], rel=EXACT)


def test_multiple_choice_under_sum_and_byte_is_the_harnesss_acc_and_acc_norm(found: dict[str, Any]) -> None:
    path = found["folder"] / "questions.jsonl"
    documents = choice_documents()
    records = [{"prompt": one["text"], "options": one["choices"], "gold": one["choices"][one["answer"]]} for one in documents]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    results, rows = ours(found, "multiple_choice", path, shown="false")
    samples = sorted(found["samples"]["sibol_choices"], key=lambda sample: int(sample["doc_id"]))
    assert len(rows) == len(samples) == len(documents)
    for row, sample in zip(rows, samples, strict=True):
        assert row["log_likelihoods"] == pytest.approx([float(response[0]) for response in sample["filtered_resps"]], rel=EXACT)
    theirs = found["results"]["sibol_choices"]
    by_rule = {rule: sum(row["predicted"][rule] == row["gold"] for row in rows) / len(rows) for rule in ("sum", "byte")}
    assert by_rule == pytest.approx({"sum": theirs["acc,none"], "byte": theirs["acc_norm,none"]}, abs=EXACT)
    assert theirs["acc,none"] != theirs["acc_norm,none"]  # or the test could not tell them apart
    assert results["metrics"]["accuracy_sum"]["value"] == pytest.approx(theirs["acc,none"], rel=EXACT)
    assert results["metrics"]["accuracy_byte"]["value"] == pytest.approx(theirs["acc_norm,none"], rel=EXACT)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_the_suite_lm_eval_gives_the_harnesss_scores_and_standard_error(found: dict[str, Any], metric: str) -> None:
    results, rows = ours(found, "lm_eval", found["folder"] / "tasks", tasks="sibol_choices", metric=metric)
    theirs = found["results"]["sibol_choices"]
    assert results["metrics"]["accuracy"]["value"] == pytest.approx(theirs[f"{metric},none"], rel=EXACT)
    harness = results["domains"]["sibol_choices"]["harness"][f"{metric},none"]
    assert harness == pytest.approx({"value": theirs[f"{metric},none"], "stderr": theirs[f"{metric}_stderr,none"]}, rel=EXACT)
    samples = sorted(found["samples"]["sibol_choices"], key=lambda sample: int(sample["doc_id"]))
    assert [row["correct"] for row in rows] == [sample[metric] for sample in samples]
