"""`sibol compare` on folders with known scores: what is different, what is noise, what else differs, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nemo_ext.common.errors import DataError, OutputExistsError, SibolError
from recipes.cli.main import app
from tests.support.evaluation_folders import write_results, write_run

BASE = [1.0, 0.0] * 20
BETTER = [1.0, 0.0] * 10 + [1.0] * 20
CATEGORIES = ["easy"] * 20 + ["hard"] * 20


def sibol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def compared(folder: Path, *arguments: object) -> dict[str, Any]:
    outcome = sibol(*arguments, "--out", folder / "out", "--overwrite")
    assert outcome.exit_code == 0, outcome.exception
    found: dict[str, Any] = json.loads((folder / "out" / "comparison.json").read_text())
    return found


def refusal(*arguments: object) -> str:
    error = sibol(*arguments).exception
    assert isinstance(error, SibolError), error
    return str(error)


def test_a_difference_its_interval_and_its_categories_are_those_of_the_scores(tmp_path: Path) -> None:
    write_results(tmp_path / "a", BASE, categories=CATEGORIES, model="plain")
    write_results(tmp_path / "b", BETTER, categories=CATEGORIES, model="stochastic")
    comparison = compared(tmp_path, tmp_path / "a", tmp_path / "b" / "results.json")
    (suite,) = comparison["suites"]
    (change,) = suite["comparisons"]
    assert (change["from"], change["to"], suite["items"]) == ("plain", "stochastic", 40)
    assert change["difference"]["value"] == pytest.approx(np.mean(BETTER) - np.mean(BASE))
    assert change["difference"]["low"] > 0 and change["difference"]["verdict"] == "clear"
    assert change["difference"]["p_value"] == 2 / 2**10  # ten pairs differ, all in one direction
    easy, hard = change["categories"]
    assert (easy["category"], easy["difference"]["value"], easy["difference"]["verdict"]) == ("easy", 0.0, "noise")
    assert (hard["difference"]["value"], hard["difference"]["verdict"]) == (0.5, "clear")
    assert hard["difference"]["adjusted_p_value"] == pytest.approx(2 * hard["difference"]["p_value"])  # two tests in that table


def test_items_of_a_cluster_count_as_one_so_that_repeating_them_makes_nothing_surer(tmp_path: Path) -> None:
    names = [f"word {number}" for number in range(len(BASE)) for _ in range(3)]
    write_results(tmp_path / "a", BASE, model="plain")
    write_results(tmp_path / "b", BETTER, model="stochastic")
    (once,) = compared(tmp_path, tmp_path / "a", tmp_path / "b")["suites"]
    for path, scores, model in ((tmp_path / "c", BASE, "plain"), (tmp_path / "d", BETTER, "stochastic")):
        write_results(path, np.repeat(scores, 3).tolist(), clusters=names, model=model, data="repeated")
    (thrice,) = compared(tmp_path, tmp_path / "c", tmp_path / "d")["suites"]
    assert (once["clusters"], thrice["items"], thrice["clusters"]) == (None, 120, 40)
    assert thrice["comparisons"][0]["difference"] == pytest.approx(once["comparisons"][0]["difference"])
    for one, other in zip(once["arms"], thrice["arms"], strict=True):
        assert [other[end] for end in ("value", "low", "high")] == pytest.approx([one[end] for end in ("value", "low", "high")])
    assert "40 clusters of 120 items" in " ".join(sibol(tmp_path / "c", tmp_path / "d").output.split())
    write_results(tmp_path / "e", np.repeat(BETTER, 3).tolist(), model="free", data="repeated")
    (free,) = compared(tmp_path, tmp_path / "d", tmp_path / "e")["suites"]
    assert free["clusters"] == 40  # those of the first results, which are about the same items


def test_tables_hold_the_numbers_of_the_json_in_full_precision(tmp_path: Path) -> None:
    write_results(tmp_path / "a", BASE, model="plain, or not")
    write_results(tmp_path / "b", [value * 0.7 for value in BETTER], model="50% & more_")
    comparison = compared(tmp_path, tmp_path / "a", tmp_path / "b")
    (row,) = csv.DictReader((tmp_path / "out" / "tables" / "pacute_differences.csv").open())
    difference = comparison["suites"][0]["comparisons"][0]["difference"]
    assert (row["from"], row["to"]) == ("plain, or not", "50% & more_")
    assert [float(row[key]) for key in ("difference", "interval low", "interval high", "p corrected")] == [
        difference[key] for key in ("value", "low", "high", "adjusted_p_value")
    ]
    latex = (tmp_path / "out" / "tables" / "pacute_differences.tex").read_text()
    assert r"50\% \& more\_" in latex and r"\toprule" in latex and "50% &" not in latex
    assert r"50% & more\_" in (tmp_path / "out" / "comparison.md").read_text()


def test_models_that_differ_at_random_are_called_noise(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((2, 60)).round(3).tolist()
    for name, values in zip("ab", scores, strict=True):
        write_results(tmp_path / name, values, model=name)
    assert compared(tmp_path, tmp_path / "a", tmp_path / "b")["suites"][0]["comparisons"][0]["difference"]["verdict"] == "noise"


def test_seeds_under_one_label_are_aggregated_with_their_spread(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arguments = []
    for arm, shift in (("plain", 0.0), ("new", 0.2)):
        for seed in range(3):
            scores = (generator.random(50) + shift + 0.05 * seed).tolist()
            arguments.append(f"{arm}={write_results(tmp_path / f'{arm}{seed}', scores, model=f'{arm}{seed}')}")
    (suite,) = compared(tmp_path, *arguments)["suites"]
    plain, new = suite["arms"]
    assert (plain["label"], plain["seeds"], new["seeds"]) == ("plain", 3, 3)
    assert plain["value"] == pytest.approx(np.mean(plain["figures"]))
    assert plain["seed_spread"] == pytest.approx(np.std(plain["figures"], ddof=1))
    difference = suite["comparisons"][0]["difference"]
    errors = [arm["seed_spread"] ** 2 / 3 for arm in (plain, new)]
    assert difference["seed_error"] == pytest.approx(sum(errors) ** 0.5)
    assert difference["item_error"] > 0 and difference["low"] < difference["value"] < difference["high"]


def test_items_in_another_order_are_paired_by_their_ids_and_other_items_are_refused(tmp_path: Path) -> None:
    write_results(tmp_path / "a", BASE, model="a")
    write_results(tmp_path / "b", BETTER, model="b")
    straight = compared(tmp_path, tmp_path / "a", tmp_path / "b")["suites"][0]["comparisons"]
    rows = (tmp_path / "b" / "per_document.jsonl").read_text().splitlines(keepends=True)
    _replace_rows(tmp_path / "b", rows[::-1])
    assert compared(tmp_path, tmp_path / "a", tmp_path / "b")["suites"][0]["comparisons"] == straight
    _replace_rows(tmp_path / "b", [*rows[:-1], rows[-1].replace("i39", "i99")])
    assert "has other items than the results before it (for example 'i39')" in refusal(tmp_path / "a", tmp_path / "b")
    _replace_rows(tmp_path / "b", [*rows[:-1], '{"id": "i39"}\n'])
    unscored = compared(tmp_path, tmp_path / "a", tmp_path / "b")
    assert (unscored["suites"][0]["comparisons"], unscored["suites"][0]["paired"]) == ([], False)
    assert "per_document.jsonl:40 has no bits, score or correct" in unscored["warnings"][0]
    (tmp_path / "b" / "per_document.jsonl").unlink()
    unscored = compared(tmp_path, tmp_path / "a", tmp_path / "b")
    assert "per_document.jsonl is missing" in unscored["warnings"][0]
    assert [arm["value"] for arm in unscored["suites"][0]["arms"]] == [np.mean(BASE), np.mean(BETTER)]  # as results.json has them


def _replace_rows(folder: Path, rows: list[str]) -> None:
    import hashlib

    results = json.loads((folder / "results.json").read_text())
    (folder / "per_document.jsonl").write_text("".join(rows))
    results["per_document"]["sha256"] = hashlib.sha256("".join(rows).encode()).hexdigest()
    (folder / "results.json").write_text(json.dumps(results))


def test_results_of_other_versions_or_items_are_not_compared_and_the_reason_is_said(tmp_path: Path) -> None:
    write_results(tmp_path / "a", BASE, model="a")
    write_results(tmp_path / "b", BETTER, model="b", version=2, data="other")
    comparison = compared(tmp_path, tmp_path / "a", tmp_path / "b")
    assert [one["comparisons"] for one in comparison["suites"]] == [[], []]
    assert "pacute of a and b is not compared: suite version, data sha256 differ." in comparison["warnings"]


def test_options_of_the_data_keep_results_apart_and_those_that_fit_a_model_to_them_do_not(tmp_path: Path) -> None:
    settings = {"resamples": 200, "confidence": 0.95, "seed": 1, "dtype": "float32"}
    for name, scores, options in (
        ("a", BASE, {"labels": "PER:pers"}),
        ("b", BETTER, {"labels": "PERSON:pers", "add_prefix_space": "true"}),
        ("c", BETTER, {"scheme": "lenient"}),
    ):
        write_results(tmp_path / name, scores, suite="ner", model=name, settings=settings | {"options": options})
    assert len(compared(tmp_path, tmp_path / "a", tmp_path / "b")["suites"]) == 1
    assert "ner of a and c is not compared: settings.scheme differ." in compared(tmp_path, tmp_path / "a", tmp_path / "c")["warnings"]


def test_a_baseline_in_two_results_is_one_arm(tmp_path: Path) -> None:
    write_results(tmp_path / "a", BASE, baseline=[0.0] * 40, model="a")
    write_results(tmp_path / "b", BETTER, baseline=[0.0] * 40, model="b")
    (suite,) = compared(tmp_path, tmp_path / "a", tmp_path / "b")["suites"]
    assert [(arm["label"], arm["seeds"]) for arm in suite["arms"]] == [("base", 1), ("a", 1), ("b", 1)]
    assert [(one["from"], one["to"]) for one in suite["comparisons"]] == [("base", "a"), ("base", "b"), ("a", "b")]


def test_a_baseline_that_has_results_of_its_own_is_one_arm_in_any_order(tmp_path: Path) -> None:
    write_results(tmp_path / "a", BASE, baseline=[0.0] * 40, model="a")
    write_results(tmp_path / "alone", [0.0] * 40, model="base")
    for arguments in ((tmp_path / "alone", tmp_path / "a"), (tmp_path / "a", tmp_path / "alone")):
        comparison = compared(tmp_path, *arguments)
        (suite,) = comparison["suites"]
        assert sorted((arm["label"], arm["seeds"]) for arm in suite["arms"]) == [("a", 1), ("base", 1)]
        assert not [warning for warning in comparison["warnings"] if "the same weights" in warning]
    own = write_results(tmp_path / "own", BASE, baseline=BASE, model="same")
    assert len(compared(tmp_path, own)["suites"][0]["arms"]) == 2  # a model beside itself


def test_models_in_folders_of_the_same_name_are_not_taken_for_seeds_of_one(tmp_path: Path) -> None:
    for name, scores in (("plain", BASE), ("patok", BETTER)):
        write_results(tmp_path / name / "export" / "results", scores, model="hf")
    (suite,) = compared(tmp_path, *(tmp_path / name / "export" / "results" for name in ("plain", "patok")))["suites"]
    assert [(arm["label"], arm["seeds"]) for arm in suite["arms"]] == [("plain/export/hf", 1), ("patok/export/hf", 1)]


def test_a_context_that_differs_in_any_suite_is_warned_of(tmp_path: Path) -> None:
    folders = [
        write_results(tmp_path / f"{name}-{suite}", scores, model=name, suite=suite)
        for name, scores in (("a", BASE), ("b", BETTER))
        for suite in ("pacute", "langgame")
    ]
    assert "context_tokens" not in " ".join(compared(tmp_path, *folders)["warnings"])
    results = json.loads((folders[-1] / "results.json").read_text())
    results["model"]["context_tokens"] = 16
    (folders[-1] / "results.json").write_text(json.dumps(results))
    assert "evaluation.langgame.context_tokens differs: a 32, b 16." in compared(tmp_path, *folders)["warnings"]


def test_runs_that_differ_in_more_than_the_factor_are_warned_of(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    second = write_run(tmp_path / "second", steps=15, optimizer__learning_rate=0.002, data__plugin="patok", train__seed=2)
    comparison = compared(tmp_path, first, second, "--factor", "data.plugin")
    found = {one["name"]: one for one in comparison["differences"]}
    assert set(found) == {"data.plugin", "optimizer.learning_rate", "train.seed", "trained.steps", "trained.tokens"} - {"data.plugin"}
    warnings = " ".join(comparison["warnings"])
    assert "optimizer.learning_rate differs: first 0.001, second 0.002." in warnings
    assert "trained.tokens differs by 33.33%: first 2,000, second 1,500." in warnings
    assert "train.seed differs, which is a difference of its own" in warnings
    assert "cannot be opened any more" in " ".join(comparison["unknown"])


def test_a_model_without_a_run_has_no_settings_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "provenance.json").write_text(json.dumps({"weights": {"fingerprint": "f", "parameters": 5}}))
    write_results(tmp_path / "results-a", BASE, model="a", provenance={"weights_fingerprint": "f"})
    write_results(tmp_path / "results-b", BETTER, model="b")
    monkeypatch.chdir(write_run(tmp_path / "run"))  # whose run.yaml is none of theirs
    unknown = compared(tmp_path, tmp_path / "results-a", tmp_path / "results-b")["unknown"]
    assert "a: the run folder that its provenance.json names is gone or changed, so settings are not compared" in unknown


def test_runs_that_differ_in_the_factor_alone_give_no_warning_and_seeds_alone_a_hint(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second", optimizer__learning_rate=0.002)
    comparison = compared(tmp_path, first, second, "--factor", "optimizer")
    assert comparison["warnings"] == [] and [one["factor"] for one in comparison["differences"]] == [True]
    third = write_run(tmp_path / "third", train__seed=2)
    assert "The arms differ in nothing but seeds" in " ".join(compared(tmp_path, first, third)["warnings"])


def test_what_cannot_be_compared_is_refused_with_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert "Nothing to compare: found run." in refusal(run)
    assert "empty is no run folder" in refusal(run, tmp_path / "empty")
    assert "missing does not exist" in refusal(run, tmp_path / "missing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.yaml").write_text("{")
    assert isinstance(sibol(run, tmp_path / "broken").exception, DataError)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    other = write_run(tmp_path / "other")
    assert isinstance(sibol(run, other, "--out", tmp_path / "out", "--overwrite").exception, OutputExistsError)
    assert (tmp_path / "out" / "thesis.tex").exists()
