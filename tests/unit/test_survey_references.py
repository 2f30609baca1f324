"""Trivial models of surveys, and people as a model of people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics.survey_answers import Scale
from evaluation.suites import Settings
from evaluation.suites.survey import SUITE
from evaluation.suites.survey_items import SurveyItems
from evaluation.suites.survey_references import PUBLISHED, majority, midpoint, references, uniform
from evaluation.suites.survey_splits import OFFICIAL, Training
from tests.support.survey_data import record, records, write_records

RESAMPLING = (100, 0.95, 1)
FIVE = Scale(1, 5)


def items(path: Path, split: str | None = None, **options: str) -> SurveyItems:
    return SUITE.read(path, Settings(split=split, options=options))


def test_trivial_models_answer_what_they_are_said_to() -> None:
    training = Training(Path("train"), frozenset(), {FIVE: Counter({4: 7, 2: 7, 5: 1})})
    assert uniform(FIVE).tolist() == [0.2] * 5
    assert midpoint(FIVE).tolist() == [0, 0, 1, 0, 0]
    assert midpoint(Scale(1, 4)).tolist() == [0, 0.5, 0.5, 0]
    assert majority(FIVE, training).tolist() == [0, 1, 0, 0, 0]  # of two that are as frequent, the smaller
    assert majority(Scale(0, 4), training).tolist() == midpoint(Scale(0, 4)).tolist()  # another scale, though as long


def test_references_have_the_figures_of_their_answers(tmp_path: Path) -> None:
    train = write_records(tmp_path / "train.jsonl", [record("t", 0, 0, 1, 0)])
    data = write_records(tmp_path / "data.jsonl", [record("a", 0, 0, value, number) for number, value in enumerate((1, 1, 5, 5))])
    found = references(items(data, train=str(train)), RESAMPLING)
    figures = {name: {metric: interval.value for metric, interval in metrics.items()} for name, metrics in found.items()}
    assert {name: metrics["wasserstein"] for name, metrics in figures.items() if name != "human"} == pytest.approx(
        {"uniform": (0.3 + 0.1 + 0.1 + 0.3) / 4, "midpoint": 0.5, "majority": 0.5}
    )
    assert figures["uniform"]["accuracy"] == pytest.approx(0.5) and figures["majority"]["accuracy"] == pytest.approx(0.5)
    assert "pearson" not in figures["uniform"]  # it says the same of everybody


def test_people_as_a_model_of_people_are_as_far_off_as_chance_has_it(tmp_path: Path) -> None:
    answers = np.random.default_rng(0).integers(1, 6, (30, 40)).tolist()
    rows = [record(f"s{study}", 0, 0, value, 1000 * study + place) for study, row in enumerate(answers) for place, value in enumerate(row)]
    found = references(items(write_records(tmp_path / "data.jsonl", rows)), RESAMPLING)["human"]
    # E|F* - F| of a level is about sqrt(2/pi) sqrt(F (1 - F) / n); four levels, a width of 4
    expected = np.mean([np.sqrt(2 / np.pi * share * (1 - share) / 40) for share in (0.2, 0.4, 0.6, 0.8)])
    assert found["wasserstein"].value == pytest.approx(expected, rel=0.1)
    assert found["sigma_ratio"].value == pytest.approx(1, abs=0.05)
    alike = [record("s", 0, 0, 3, number) for number in range(5)]
    assert references(items(write_records(tmp_path / "alike.jsonl", alike)), RESAMPLING)["human"]["wasserstein"].value == 0


def test_published_figures_stand_beside_the_published_split_alone(tmp_path: Path) -> None:
    data = write_records(tmp_path / "data.jsonl", records(("s0", "s1")))
    assert not set(PUBLISHED) & set(references(items(data), RESAMPLING))
    studies = iter([*(f"t{number}" for number in range(OFFICIAL["seen"])), *(f"s{number}" for number in range(OFFICIAL["unseen"]))])
    mapping = {name: [next(studies) for _ in range(count)] for name, count in OFFICIAL.items()}
    (tmp_path / "participant_mapping.json").write_text(str(mapping).replace("'", '"'))
    found = references(items(data, mapping=str(tmp_path / "participant_mapping.json")), RESAMPLING)
    assert set(found["published uniform"]) == {"wasserstein_human_range"} and set(PUBLISHED) <= set(found)
    seen = items(write_records(tmp_path / "seen.jsonl", records(("t0",))), "seen", mapping=str(tmp_path / "participant_mapping.json"))
    assert not set(PUBLISHED) & set(references(seen, RESAMPLING))  # those are of the unseen studies
