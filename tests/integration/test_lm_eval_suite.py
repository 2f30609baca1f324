"""`sibol evaluate --suite lm_eval:TASK`: the harness's tasks with intervals, ties shared, offline, and refusals that say what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from evaluation.compare import compare
from evaluation.report import write_report
from evaluation.suites.lm_eval_tasks import open_tasks
from nemo_ext.common.errors import ConfigError, DataError, SibolError
from recipes.cli.main import app
from tests.support.harness_tasks import CHOICES, ROLLING, WRITING, choice_documents, write_task
from tests.support.tiny_language_models import TEXTS, save_tiny_qwen2, train_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` and `other`, which has another tokenizer; `flat`, whose logits are all equal; `broken`, whose weights are NaN."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_qwen2(folder / "model", context=64)
    save_tiny_qwen2(folder / "other", context=64, vocab_size=300, seed=1)
    save_tiny_qwen2(folder / "flat", context=64, spread=0.0)
    weights = load_file(save_tiny_qwen2(folder / "broken", context=64) / "model.safetensors")
    save_file(
        weights | {"model.norm.weight": weights["model.norm.weight"] * float("nan")},
        folder / "broken" / "model.safetensors",
        {"format": "pt"},
    )
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_task(folder, "sibol_choices", CHOICES, choice_documents())
    first = [document | {"answer": 0, "choices": list("#@^~")} for document in choice_documents()]  # one token each
    write_task(folder, "sibol_first", CHOICES, first, "num_fewshot: 0")
    write_task(folder, "sibol_writing", WRITING, [{"text": text[:12], "answer": "the"} for text in TEXTS[:3]])
    write_task(folder, "sibol_rolling", ROLLING, [{"text": text} for text in TEXTS])
    (folder / "away.yaml").write_text(CHOICES.format(name="sibol_away", data="nowhere.jsonl", more=""))
    (folder / "hub.yaml").write_text(CHOICES.format(name="sibol_hub", data="x", more="").replace("path: json", "path: some/where"))
    return folder


def sibol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    error = sibol(*arguments).exception
    assert isinstance(error, SibolError), error
    return str(error)


def run(tasks: Path, names: str, out: Path, model: Path, *more: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    outcome = sibol(model, "--suite", f"lm_eval:{names}", "--data", tasks, "--out", out, "--device", "cpu", *more)
    assert outcome.exit_code == 0, outcome.exception
    return json.loads((out / "results.json").read_text()), [json.loads(line) for line in (out / "per_document.jsonl").open()]


def test_tasks_are_scored_with_intervals_a_baseline_and_the_harnesss_own_figures(models: Path, tasks: Path, tmp_path: Path) -> None:
    results, rows = run(tasks, "sibol_choices,sibol_writing", tmp_path / "out", models / "model", "--baseline", models / "other")
    assert [row["id"] for row in rows[:2]] == ["sibol_choices/0", "sibol_choices/1"] and len(rows) == 27
    value = results["metrics"]["accuracy"]
    assert value["value"] == pytest.approx(sum(row["correct"] for row in rows) / 27) and value["low"] <= value["value"] <= value["high"]
    choices, writing = results["domains"]["sibol_choices"], results["domains"]["sibol_writing"]
    assert results["metrics"]["task_mean"]["value"] == pytest.approx((choices["accuracy"]["value"] + writing["accuracy"]["value"]) / 2)
    assert choices["harness"]["acc,none"]["value"] == pytest.approx(choices["accuracy"]["value"])
    assert choices["harness"]["acc,none"]["stderr"] > 0 and choices["task"]["version"] == 3.0 and choices["uniform"] == 0.25
    assert results["references"] == {}  # nothing is guessed where text is written
    assert results["data"]["tasks"]["sibol_writing"]["output_type"] == "generate_until"
    difference = results["baseline"]["difference"]["accuracy"]["value"]
    assert difference == pytest.approx(value["value"] - results["baseline"]["metrics"]["accuracy"]["value"])
    assert {"baseline_correct", "category"} <= set(rows[0])
    compared = compare([tmp_path / "out"])["suites"][0]["comparisons"][0]
    assert -compared["difference"]["value"] == pytest.approx(-difference) and compared["categories"]
    assert write_report([tmp_path / "out"], tmp_path / "report")["comparison"]["suites"][0]["metric"] == "accuracy"


def test_a_model_of_equal_logits_has_chance_where_the_harness_says_all_is_right(models: Path, tasks: Path, tmp_path: Path) -> None:
    results, rows = run(tasks, "sibol_first", tmp_path / "out", models / "flat", "--set", "limit=20")
    assert results["domains"]["sibol_first"]["harness"]["acc,none"]["value"] == 1.0
    assert results["metrics"]["accuracy"] == {"value": 0.25, "low": 0.25, "high": 0.25}
    assert results["references"]["uniform"]["accuracy"]["value"] == 0.25 and {row["correct"] for row in rows} == {0.25}
    assert "limit=20 leaves out documents of sibol_first" in results["warnings"][0]
    assert "options that tie in 20 of 20 documents" in results["warnings"][1] and "is +0.75 from ours" in results["warnings"][1]


def test_a_score_that_is_no_number_fails_the_run(models: Path, tasks: Path, tmp_path: Path) -> None:
    arguments = ("--suite", "lm_eval:sibol_choices", "--data", tasks, "--out", tmp_path / "out", "--device", "cpu")
    assert "document 0 of task sibol_choices the log-likelihood nan" in refusal(models / "broken", *arguments)
    writing = ["--suite", "lm_eval:sibol_writing", *arguments[2:]]
    assert "logits are not finite, so what it writes means nothing" in refusal(models / "broken", *writing)


def test_tasks_of_the_harness_read_local_records_in_the_place_of_a_download(models: Path, tmp_path: Path) -> None:
    pairs = [{"sentence_good": f"The foxes {verb} again.", "sentence_bad": f"The foxes {verb}s again."} for verb in ("jump", "grow", "run")]
    easy = {"question": "Which one grows?", "choices": {"text": ["a dog", "a seed"], "label": ["A", "B"]}, "answerKey": "B"}
    written = {"blimp_causative": {"train": pairs}, "arc_easy": {"train": [easy], "validation": [easy], "test": [easy, easy]}}
    for name, splits in written.items():
        for split, records in splits.items():
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    results, rows = run(tmp_path / "data", "blimp_causative,arc_easy", tmp_path / "out", models / "model")
    assert [row["id"] for row in rows] == [*(f"blimp_causative/{number}" for number in range(3)), "arc_easy/0", "arc_easy/1"]
    assert results["data"]["tasks"]["arc_easy"] == results["data"]["tasks"]["arc_easy"] | {"version": 1.0, "documents_in_all": 2}
    command = ("--data", tmp_path / "data", "--out", tmp_path / "more")
    assert "Data found below" in (missing := refusal(models / "model", "--suite", "lm_eval:blimp", *command))
    assert "blimp_causative (train)" in missing and "TASK/SPLIT.jsonl" in missing
    (tmp_path / "data" / "arc_easy" / "train.jsonl").unlink()
    assert "arc_easy (test, validation)" in refusal(models / "model", "--suite", "lm_eval:arc_easy", *command)


def test_the_digest_of_a_task_with_functions_is_the_same_in_every_process(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "tasks", "sibol_changed", CHOICES, choice_documents(), "process_docs: !function changes.shorten")
    (folder / "changes.py").write_text("def shorten(documents):\n    return documents.select(range(3))\n")
    loaded = []
    for second in (1, 2):
        os.utime(folder / "changes.py", (second, second))  # which makes the harness import the file again: another function
        loaded.append(open_tasks(folder, ["sibol_changed"], None, None, None))
    functions = [one.tasks["sibol_changed"].config.process_docs for one in loaded]
    assert functions[0] is not functions[1] and loaded[0].documents == 3
    assert loaded[0].sha256 == loaded[1].sha256
    assert loaded[0].sha256 != open_tasks(folder, ["sibol_changed"], None, None, 2).sha256


def test_examples_in_the_prompt_and_a_context_too_small_for_them_are_counted(models: Path, tasks: Path, tmp_path: Path) -> None:
    results, _ = run(tasks, "sibol_choices", tmp_path / "out", models / "model", "--set", "num_fewshot=6", "--context", 40)
    assert results["domains"]["sibol_choices"]["task"]["num_fewshot"] == 6
    assert any("96 requests to the model were cut" in warning for warning in results["warnings"])
    results, _ = run(tasks, "sibol_writing", tmp_path / "written", models / "model", "--context", 6)
    cut = sum(len(train_tokenizer()(text[:12])["input_ids"]) > 6 - 4 for text in TEXTS[:3])
    assert cut and any(f"{cut} requests to the model were cut" in warning for warning in results["warnings"])
    arguments = ("--suite", "lm_eval:sibol_writing", "--data", tasks, "--out", tmp_path / "none", "--device", "cpu", "--context", 4)
    assert "sibol_writing has 4 tokens written, which leaves no room for a prompt" in refusal(models / "model", *arguments)


def test_what_cannot_be_measured_offline_is_refused_with_its_task(models: Path, tasks: Path, tmp_path: Path) -> None:
    def refused(names: str, *more: object) -> str:
        return refusal(models / "model", "--suite", f"lm_eval:{names}", "--data", tasks, "--out", tmp_path / "out", *more)

    before = os.environ.get("HF_HUB_OFFLINE")
    assert "Task sibol_away of lm-evaluation-harness cannot be loaded here: FileNotFoundError" in refused("sibol_away")
    missing = refused("sibol_hub")
    assert "Task sibol_hub" in missing and "some/where" in missing and "Nothing is downloaded" in missing
    assert "Did you mean 'sibol_choices'?" in refused("sibol_choice")
    assert "Use --suite bits_per_byte" in refused("sibol_rolling")
    assert "fixes `num_fewshot: 0`" in refused("sibol_first", "--set", "num_fewshot=2")
    assert "no score per document called f1" in refused("sibol_choices", "--set", "metric=f1")
    assert "has no tasks" in refusal(models / "model", "--suite", "lm_eval", "--data", tasks, "--out", tmp_path / "out")
    assert "--split: the suite lm_eval does not read it" in refused("sibol_choices", "--split", "test")
    assert os.environ.get("HF_HUB_OFFLINE") == before and not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="is not a folder"):
        raise sibol(models / "model", "--suite", "lm_eval:a", "--data", tmp_path / "x", "--out", tmp_path / "out").exception  # type: ignore[misc]
    with pytest.raises(ConfigError, match="at least 1"):
        command = ("--suite", "lm_eval:a", "--set", "limit=0", "--data", tasks, "--out", tmp_path / "out")
        raise sibol(models / "model", *command).exception  # type: ignore[misc]
