"""`sibol evaluate --suite survey` from records to results, compared and reported on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from typer.testing import CliRunner, Result

from evaluation.compare import compare
from evaluation.report import write_report
from nemo_ext.common.errors import SibolError
from recipes.cli.main import app
from tests.support.survey_data import records, save_answering_model, write_records

STUDIES = [f"s{number}" for number in range(5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_answering_model(folder / "tuned", seed=1)
    save_answering_model(folder / "base", seed=2)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_records(folder / "train.jsonl", records(("t0", "t1")))
    return write_records(folder / "unseen.jsonl", records(STUDIES, people=8))


def sibol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--suite", "survey", "--resamples", "100"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def test_sampled_answers_become_figures_per_cell_study_and_over_studies(models: Path, data: Path, tmp_path: Path) -> None:
    out, train = tmp_path / "out", data.parent / "train.jsonl"
    command = (models / "tuned", "--data", data, "--baseline", models / "base", "--set", f"train={train}")
    outcome = sibol(*command, "--out", out, "--set", "samples=3", "--set", "temperature=1", "--set", "top_p=1")
    assert outcome.exit_code == 0, outcome.exception
    results, answers, cells = read(out), lines(out / "answers.jsonl"), lines(out / "cells.jsonl")
    assert results["model"]["asked"]["answer"] == "generate" and results["model"]["asked"]["samples"] == 3
    assert results["settings"]["interval"] == "percentile bootstrap over studies"
    assert set(results["references"]) == {"uniform", "midpoint", "majority", "human"}
    people = [row for row in answers if row["study"] == "s0" and row["condition"] == "0" and row["task"] == "0"]
    shares = [(value, 1 / len(row["answers"])) for row in people for value in row["answers"]]
    distance = wasserstein_distance([value for value, _ in shares], [row["response"] for row in people], [weight for _, weight in shares])
    assert cells[0]["wasserstein"] == pytest.approx(distance / 4)
    by_study = [np.mean([cell["wasserstein"] for cell in cells if cell["study"] == study]) for study in STUDIES]
    assert [row["score"] for row in lines(out / "per_document.jsonl")] == pytest.approx(by_study)
    primary = results["metrics"]["wasserstein"]
    assert primary["value"] == pytest.approx(np.mean(by_study)) and primary["low"] <= primary["value"] <= primary["high"]
    failures = sum(len(row.get("failures", [])) for row in answers)
    assert failures > 0
    assert results["metrics"]["parse_failure_rate"]["value"] == pytest.approx(failures / (3 * len(answers)))
    assert all(len(row["answers"]) + len(row.get("failures", [])) == 3 for row in answers)
    assert any("were not understood" in warning for warning in results["warnings"])
    floor = results["references"]["human"]["wasserstein"]["value"]
    assert 0 < floor < results["references"]["uniform"]["wasserstein"]["value"]
    difference = results["baseline"]["difference"]["wasserstein"]["value"]
    assert difference == pytest.approx(primary["value"] - results["baseline"]["metrics"]["wasserstein"]["value"])
    assert results["domains"]["s0"]["wasserstein"]["value"] == pytest.approx(by_study[0])


def test_compare_and_report_pair_the_studies(models: Path, data: Path, tmp_path: Path) -> None:
    options = ("--data", data, "--set", "answer=likelihood")
    for name in ("tuned", "base"):
        outcome = sibol(models / name, *options, "--out", tmp_path / name)
        assert outcome.exit_code == 0, outcome.exception
    assert sibol(models / "tuned", *options, "--out", tmp_path / "paired", "--baseline", models / "base").exit_code == 0
    (suite,) = compare([tmp_path / "base", tmp_path / "tuned"])["suites"]
    expected = read(tmp_path / "paired")["baseline"]["difference"]["wasserstein"]
    assert (suite["items"], suite["lower_is_better"]) == (5, True)
    assert {key: suite["comparisons"][0]["difference"][key] for key in expected} == pytest.approx(expected)
    write_report([tmp_path / "base", tmp_path / "tuned"], tmp_path / "report")
    assert "survey v1 on 160 items" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("chat", [False, True])
def test_likelihoods_are_the_models_own_probabilities_of_whole_answers(models: Path, data: Path, tmp_path: Path, chat: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = ("chat=true", "system=word 1") if chat else ("answer_end= word",)
    options = [part for one in ("answer=likelihood", *asked) for part in ("--set", one)]
    outcome = sibol(models / "tuned", "--data", data, "--out", tmp_path / "out", *options)
    assert outcome.exit_code == 0, outcome.exception
    results, row = read(tmp_path / "out"), lines(tmp_path / "out" / "answers.jsonl")[0]
    assert results["metrics"]["parse_failure_rate"]["value"] == 0 and results["metrics"]["cells_left_out"]["value"] == 0
    tokenizer, model = (kind.from_pretrained(models / "tuned") for kind in (AutoTokenizer, AutoModelForCausalLM))
    prompt = next(one["prompt"] for one in lines(data) if str(one["sample_id"]) == row["id"])
    text = f"word 1 <turn> {prompt} <turn> {{}} <end0>" if chat else f"{prompt}\n{{}} word"
    scores = []
    for value in range(1, 6):
        ids = torch.tensor([tokenizer(text.format(value), add_special_tokens=False)["input_ids"]])
        assert tokenizer.convert_ids_to_tokens(ids[0])[-2:] == [str(value), "<end0>" if chat else "word"]
        with torch.no_grad():
            logs = model(ids).logits[0].log_softmax(-1)
        scores.append(float(logs[-3, ids[0, -2]] + logs[-2, ids[0, -1]]))
    expected = np.exp(scores) / np.exp(scores).sum()
    assert row["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_probabilities_do_not_depend_on_how_many_are_weighed_at_once(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number, most in enumerate((10_000, 7)):
        monkeypatch.setattr("evaluation.suites.survey_answering.OPTIONS_AT_ONCE", most)
        options = ("--set", "answer=likelihood", "--set", "most_per_cell=2")
        assert sibol(models / "tuned", "--data", data, "--out", tmp_path / str(number), *options).exit_code == 0
        found.append([row["probabilities"] for row in lines(tmp_path / str(number) / "answers.jsonl")])
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), abs=1e-6)


def test_answers_are_the_same_each_time_and_greedy_ones_need_no_seed(models: Path, data: Path, tmp_path: Path) -> None:
    few = (models / "tuned", "--data", data, "--set", "most_per_cell=2")
    chat = ("--set", "chat=true", "--set", "system=Answer 1 to 5.")
    runs: dict[str, tuple[str, ...]] = {
        "a": (),
        "b": ("--batch-size", "1"),
        "c": ("--set", "sampling_seed=5"),
        "greedy": ("--set", "temperature=0"),
        "chat": chat,
    }
    found = {}
    for name, options in runs.items():
        outcome = sibol(*few, *options, "--out", tmp_path / name)
        assert outcome.exit_code == 0, outcome.exception
        found[name] = (tmp_path / name / "answers.jsonl").read_text()
    assert found["a"] == found["b"]
    assert len(set(found.values())) == 4


def test_a_model_that_never_answers_has_no_figures_and_says_so(models: Path, data: Path, tmp_path: Path) -> None:
    # One token is never known to be a whole number.
    outcome = sibol(models / "tuned", "--data", data, "--out", tmp_path / "out", "--set", "max_new_tokens=1", "--set", "top_p=0.01")
    assert outcome.exit_code == 0, outcome.exception
    results = read(tmp_path / "out")
    assert results["metrics"]["wasserstein"] == {"value": None, "low": None, "high": None}
    assert results["metrics"]["parse_failure_rate"]["value"] == 1
    assert results["metrics"]["cells_left_out"]["value"] == 20
    assert "pearson" not in results["metrics"]
    assert any("has no answer on the scale in 20 of 20 cells" in warning for warning in results["warnings"])
    comparison = compare([f"a={tmp_path / 'out'}", f"b={tmp_path / 'out'}"])
    assert comparison["suites"][0]["comparisons"] == []
    assert any("is not compared item by item" in warning for warning in comparison["warnings"])


def test_a_seen_study_is_refused_before_a_model_is_loaded(models: Path, data: Path, tmp_path: Path) -> None:
    error = sibol(models / "tuned", "--data", data, "--out", tmp_path / "out", "--set", f"train={data}").exception
    assert isinstance(error, SibolError) and "hold 5 studies (s0, s1, s2, s3, s4) of those that are to be judged" in str(error)
    assert not (tmp_path / "out").exists()


def test_a_file_of_predictions_is_read_as_a_model_is(models: Path, data: Path, tmp_path: Path) -> None:
    assert sibol(models / "tuned", "--data", data, "--out", tmp_path / "model").exit_code == 0
    rows = lines(tmp_path / "model" / "answers.jsonl")
    said = [{"sample_id": row["id"], "answer": (row["answers"] or [row["failures"][0][1]])[0]} for row in rows]
    outcome = sibol(write_records(tmp_path / "said.jsonl", said), "--data", data, "--out", tmp_path / "file")
    assert outcome.exit_code == 0, outcome.exception
    assert [row["answers"] for row in lines(tmp_path / "file" / "answers.jsonl")] == [row["answers"] for row in rows]
    results, expected = read(tmp_path / "file"), read(tmp_path / "model")
    assert results["metrics"] == expected["metrics"] and results["references"] == expected["references"]
    assert results["model"]["asked"] == {"answer": "predictions of a file"}
    people = [{"sample_id": one["sample_id"], "answer": f"Response: {one['response']}."} for one in lines(data)]
    outcome = sibol(write_records(tmp_path / "people.jsonl", people), "--data", data, "--out", tmp_path / "people")
    assert outcome.exit_code == 0, outcome.exception
    metrics = {name: entry["value"] for name, entry in read(tmp_path / "people")["metrics"].items()}
    right = {"wasserstein": 0, "accuracy": 1, "mae": 0, "pearson": 1, "sigma_ratio": 1, "calibration_slope": 1, "condition_sensitivity": 1}
    assert {name: metrics[name] for name in right} == pytest.approx(right)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"answer": None}, "said.jsonl:1 has the answer None. Expected a number or text"),
        ({"sample_id": "who"}, "said.jsonl:1 has the sample_id 'who', which"),
        ({"sample_id": 1}, "has no answer of 1 of the 160 persons to judge, such as sample_id '0'"),
    ],
)
def test_predictions_for_other_data_are_refused(data: Path, tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    said = [{"sample_id": one["sample_id"], "answer": 3} for one in lines(data)]
    error = sibol(
        write_records(tmp_path / "said.jsonl", [said[0] | change, *said[1:]]), "--data", data, "--out", tmp_path / "out"
    ).exception
    assert isinstance(error, SibolError) and complaint in str(error)


def test_answers_that_a_tokenizer_cannot_write_are_not_weighed(models: Path, data: Path, tmp_path: Path) -> None:
    options = ("--data", data, "--set", "answer=likelihood", "--set", "answer_end=!")
    error = sibol(models / "tuned", *options, "--out", tmp_path / "out").exception
    assert isinstance(error, SibolError) and "has no tokens for some of the answers 1, 2, 3, 4, 5, ... or for what ends them" in str(error)
