"""pacute, hierarchical, langgame and addition from generated and published lines to results, compare and report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.benchmarks.generate import Request, generate
from evaluation.choice import ChoiceItem, GenerativeItem
from evaluation.choice_scoring import ItemScore
from evaluation.choice_summary import ChoiceScores
from evaluation.compare import compare
from evaluation.report import write_report
from evaluation.run import evaluate
from evaluation.suites import SUITES, Settings
from nemo_ext.common.errors import ConfigError, DataError
from tests.support.tiny_language_models import save_tiny_qwen2

SUITE_NAMES = ("pacute", "hierarchical", "langgame", "addition")
PROMPT = {"text_en": "Spell out the word.", "text_tl": "Baybayin ang salita."}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_qwen2(folder / "model", context=512)
    save_tiny_qwen2(folder / "base", context=512, seed=1)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "benchmark"
    generate(out, request=Request(items=2))
    return out


def settings(**options: object) -> Settings:
    return Settings(resamples=50, options={name: str(value) for name, value in options.items()})


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def items_of(suite: str, path: Path, **options: object) -> Any:
    return SUITES.get(suite).read(path, settings(**options)).items


def choice_row(correct: str = "t a", label: str = "B", **changes: Any) -> dict[str, Any]:
    choices = {"choice1": "a t", "choice2": "t a"}
    prompt = PROMPT | {"mcq_options": {"correct": correct, "incorrect1": "a t"}} | choices
    return {"category": "composition", "subcategory": "spelling", "prompts": [prompt], "label": label, "id": "c0"} | changes


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_what_is_generated_is_measured_compared_and_reported(suite: str, models: Path, data: Path, tmp_path: Path) -> None:
    shared = {"suite": suite, "settings": settings(form="both", max_new_tokens=4), "device": "cpu"}
    results = evaluate(models / "model", data, tmp_path / "a", baseline_dir=models / "base", **shared)
    evaluate(models / "base", data, tmp_path / "b", **shared)
    rows = [json.loads(line) for line in (tmp_path / "a" / "per_document.jsonl").read_text().splitlines()]
    files = [entry for entry in json.loads((data / "manifest.json").read_text())["files"].values() if entry["suite"] == suite]
    assert results["data"]["documents"] == len(rows) == sum(entry["items"] for entry in files)
    assert results["data"]["multiple_choice_items"] > 0 and results["data"]["generative_items"] > 0
    assert all({"correct", "baseline_correct", "category"} <= set(row) for row in rows)
    assert results["metrics"]["accuracy"]["value"] == pytest.approx(np.mean([row["correct"] for row in rows]))
    assert {"uniform"} <= set(results["references"]) and results["domains"]
    assert any("mixes chosen and written answers" in warning for warning in results["warnings"])
    folders = [tmp_path / "a", tmp_path / "b"]
    assert "accuracy" in json.dumps(compare(folders))
    write_report(folders, tmp_path / "report")
    assert suite in (tmp_path / "report" / "report.html").read_text()


def test_the_language_and_the_form_are_chosen(data: Path) -> None:
    english, filipino = (items_of("pacute", data / "composition_mcq.jsonl", language=language) for language in ("en", "tl"))
    assert english[0].prompt.startswith("Spell out the word") and filipino[0].prompt.startswith("Baybayin ang salitang")
    assert {item.language for item in filipino} == {"tl"} and english[0].gold == filipino[0].gold
    chosen = SUITES.get("pacute").read(data, settings())
    assert all(isinstance(item, ChoiceItem) for item in chosen.items) and not chosen.warnings
    written = items_of("pacute", data, form="gen", language="tl")
    assert all(isinstance(item, GenerativeItem) and item.prompt.endswith("\nSagot:") for item in written)
    assert not any(item.prompt.endswith(":") for item in items_of("pacute", data, form="gen", chat=True))
    assert items_of("langgame", data)[0].language == "tl" and items_of("addition", data, form="gen")[0].prompt.endswith("=")
    assert not items_of("langgame", data)[0].question.endswith("Sagot:")
    with pytest.raises(ConfigError, match="expected en or tl"):
        items_of("pacute", data, language="fr")


def test_published_lines_are_read_by_the_value_of_the_right_answer(tmp_path: Path) -> None:
    (item,) = items_of("pacute", write(tmp_path / "composition_mcq.jsonl", choice_row()))
    assert (item.gold, item.options, item.category) == ("t a", ("a t", "t a"), "composition: spelling")
    game = {"question": "Which word ends with 't'? The options: [ slow, coat]. Answer:", "answer": " coat", "options": [" coat", " slow"]}
    (item,) = items_of("langgame", write(tmp_path / "langgame_mcq.jsonl", game | {"id": "l0"}))
    assert (item.gold, item.options, item.language) == ("coat", ("coat", "slow"), "en")
    level = {"level": 0, "category": "recognition", "prompt_en": "?", "prompt_tl": "Ano?", "word": "kati", "metadata": {"position": 3}}
    (item,) = items_of("hierarchical", write(tmp_path / "hierarchical_mcq.jsonl", level | {"options": ["k", "t"], "answer": "t"}))
    assert (item.gold, item.category, dict(item.extra)) == ("t", "level 0: recognition", {"level": 0})
    free = {"category": "manipulation", "subcategory": "uppercasing", "prompts": [PROMPT], "label": "maskI"}  # published without ids
    (item,) = items_of("pacute", write(tmp_path / "manipulation_gen.jsonl", free), form="gen")
    assert item.exact_case and item.answers == ("maskI",) and item.id == "manipulation_gen.jsonl:1"
    affix = free | {"subcategory": "inflected_affix_extraction", "label": "-hin", "accepted": ["-hin", "-in"]}
    (item,) = items_of("pacute", write(tmp_path / "morphological_extraction_gen.jsonl", affix), form="gen")
    assert item.answers == ("-hin", "-in", "hin", "in") and not item.exact_case


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (choice_row(label="A"), "says that 't a' is right and that option 'A' is, which is 'a t'"),
        (choice_row(label="D"), "which is None"),
        (choice_row(correct="x y"), "says that 'x y' is right"),
        (choice_row(prompts=[]), "has no prompts"),
        (choice_row(prompts=["?"]), "has str in prompts"),
        (choice_row(prompts=[PROMPT | {"mcq_options": 3}]), "has int in mcq_options"),
        (choice_row(prompts=[{"text_tl": "?", "mcq_options": {"correct": "a"}}]), "no text in field 'text_en'"),
    ],
)
def test_lines_that_contradict_themselves_are_refused_by_file_and_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        items_of("pacute", write(tmp_path / "composition_mcq.jsonl", row))
    assert "composition_mcq.jsonl:1" in str(caught.value)


def test_options_that_stand_there_twice_are_refused_or_dropped_and_counted(tmp_path: Path) -> None:
    prompt = PROMPT | {"mcq_options": {"correct": "a"}} | {f"choice{n}": text for n, text in enumerate("abb", 1)}
    path = write(tmp_path / "composition_mcq.jsonl", choice_row(correct="a", label="A", prompts=[prompt]))
    with pytest.raises(DataError, match="'b' twice"):
        items_of("pacute", path)
    assert items_of("pacute", path, drop_duplicates=True)[0].options == ("a", "b")


def test_a_folder_without_files_of_the_suite_is_refused(data: Path, tmp_path: Path) -> None:
    write(tmp_path / "cute_gen.jsonl", {"question": "?"})
    with pytest.raises(DataError, match=r"no file of the suite langgame \(found cute_gen.jsonl\)"):
        items_of("langgame", tmp_path)
    with pytest.raises(DataError, match="no items for this suite"):
        items_of("addition", data / "multi_digit_addition_gen.jsonl")
    with pytest.raises(DataError, match="has the level 6, expected 0 to 5"):
        items_of("hierarchical", write(tmp_path / "x.jsonl", {"level": 6}))


def level_scores(data: Path, points: Any) -> ChoiceScores:
    """Scores of the generated hierarchy: `points(chain, level)`."""
    items = SUITES.get("hierarchical").read(data, settings())
    scores = [
        ItemScore({"sum": value, "byte": value}) for value in (points(item.extra["chain"], item.extra["level"]) for item in items.items)
    ]
    return ChoiceScores(items, scores, "byte")


def test_the_climb_is_what_can_be_counted_by_hand(tmp_path: Path) -> None:
    generate(tmp_path / "data", ["hierarchical"], Request(items=30))
    # ten chains answer everything, ten fall on level 2 alone, ten on level 0 alone
    model = level_scores(tmp_path / "data", lambda chain, level: float(chain % 3 == 0 or level != (2 if chain % 3 == 1 else 0)))
    half = level_scores(tmp_path / "data", lambda chain, level: 0.5)
    summary = SUITES.get("hierarchical").summarise([model, half], settings())
    assert summary.metrics["levels_in_a_row"].value == pytest.approx((10 * 6 + 10 * 2 + 10 * 0) / 30)
    expected = sum(0.5**n for n in range(1, 7))
    assert summary.baseline_metrics and summary.baseline_metrics["levels_in_a_row"].value == pytest.approx(expected)
    assert summary.comparison and summary.comparison["levels_in_a_row"].value == pytest.approx(80 / 30 - expected)
    assert summary.references["uniform"]["levels_in_a_row"].value == pytest.approx(sum(0.25**n for n in range(1, 7)))
    given = {name: entry["accuracy"] for name, entry in summary.domains.items() if "given" in name}
    assert [entry["value"] for entry in given.values()] == [1.0, 0.5, 1.0, 1.0, 1.0]
    assert given["level 2 given 0 to 1"]["low"] < 0.5 < given["level 2 given 0 to 1"]["high"]
    assert summary.domains["level 2 given 0 to 1"]["items"] == 20
    none = SUITES.get("hierarchical").summarise([level_scores(tmp_path / "data", lambda chain, level: float(level > 0))], settings())
    assert none.metrics["levels_in_a_row"].value == 0 and not any("given" in name for name in none.domains)


def test_items_without_chains_have_accuracies_and_a_warning(tmp_path: Path) -> None:
    row = {"level": 0, "category": "recognition", "prompt_en": "?", "prompt_tl": "?", "word": "kati", "options": ["k", "t"], "answer": "t"}
    items = SUITES.get("hierarchical").read(write(tmp_path / "h.jsonl", row, row | {"level": 1}), settings())
    summary = SUITES.get("hierarchical").summarise([ChoiceScores(items, [ItemScore({"byte": 1.0})] * 2, "byte")], settings())
    assert summary.metrics["accuracy"].value == 1 and "levels_in_a_row" not in summary.metrics
    assert "belong to no chains" in summary.warnings[-1]


def test_families_have_rows_above_their_subcategories_and_people_only_beside_the_released_items(data: Path) -> None:
    items = SUITES.get("pacute").read(data, settings())
    scores = ChoiceScores(items, [ItemScore({"byte": float(number % 2)}) for number in range(len(items.items))], "byte")
    summary = SUITES.get("pacute").summarise([scores], settings())
    below = [entry["items"] for name, entry in summary.domains.items() if name.startswith("composition: ")]
    assert summary.domains["composition"]["items"] == sum(below) and len(below) == 8
    assert list(summary.domains).index("composition") < list(summary.domains).index("composition: length")
    assert "human" not in summary.references
    released = [ChoiceItem(f"i{number}", "?", ("a", "b"), "a", category="composition: length") for number in range(950)]
    assert SUITES.get("pacute").references(replace(items, items=tuple(released))) == {"human": 0.926}
