"""Measures of agreement with people's answers, against scipy and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress, pearsonr, wasserstein_distance

from evaluation.metrics.survey import Cell, CellFigures, differences, measure_cell, metrics, study_columns
from evaluation.metrics.survey_answers import Scale

RESAMPLING = (200, 0.95, 1)


def cell(responses: list[int], scale: Scale, study: str = "s", condition: str = "0", task: str = "0") -> Cell:
    return Cell(study, condition, task, scale, np.array(responses))


def answers(values: list[int | None], scale: Scale) -> np.ndarray:
    """One answer a person; None where there is none."""
    probabilities = np.zeros((len(values), scale.levels))
    for row, value in enumerate(values):
        if value is not None:
            probabilities[row, value - scale.minimum] = 1
    return probabilities


def measured(responses: list[int], values: list[int | None], scale: Scale) -> CellFigures:
    figures = measure_cell(cell(responses, scale), answers(values, scale))
    assert figures is not None
    return figures


def overall(pairs: list[tuple[Cell, np.ndarray]]) -> dict[str, float]:
    cells = [one for one, _ in pairs]
    asked = np.array([len(one.responses) for one in cells])
    figures = [measure_cell(*pair) for pair in pairs]
    return {name: found.value for name, found in metrics(study_columns(cells, figures, 0 * asked, asked), RESAMPLING).items()}


def test_equal_distributions_have_no_distance_whoever_answered_what() -> None:
    figures = measured([1, 3, 9, 9], [9, 9, 1, 3], Scale(1, 9))
    assert figures.averages["wasserstein"] == figures.averages["wasserstein_human_range"] == 0
    assert figures.averages["sigma"] == figures.averages["human_sigma"]


def test_a_constant_8_against_a_constant_1_is_seven_eighths_of_a_1_to_9_scale_off() -> None:
    averages = measured([1, 1], [8, 8], Scale(1, 9)).averages
    assert averages["wasserstein"] == 0.875  # each rescaled by its own minimum and maximum, it would be 0
    assert averages["accuracy"] == averages["accuracy_median"] == 0.125
    assert averages["mae"] == 0.875 and averages["mse"] == 0.875**2
    assert np.isnan(averages["wasserstein_human_range"])  # all people answered alike, so there is no range to divide by


def test_the_human_range_makes_distances_larger_than_the_stated_scale_does() -> None:
    averages = measured([2, 4], [5, 5], Scale(1, 9)).averages
    assert averages["wasserstein"] == 2 / 8
    assert averages["wasserstein_human_range"] == 2 / 2


@given(st.data())
def test_distances_and_deviations_are_those_of_scipy_and_numpy(data: st.DataObject) -> None:
    scale = Scale(data.draw(st.integers(-5, 5)), data.draw(st.integers(6, 20)))
    whole = st.integers(scale.minimum, scale.maximum)
    human = data.draw(st.lists(whole, min_size=1, max_size=12))
    row = st.lists(st.integers(0, 5), min_size=scale.levels, max_size=scale.levels).filter(any)
    weights = np.array(data.draw(st.lists(row, min_size=len(human), max_size=len(human))))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    figures = measure_cell(cell(human, scale), probabilities)
    assert figures is not None
    levels, shares = np.array(scale.values), probabilities.mean(axis=0)
    distance = wasserstein_distance(levels, human, u_weights=shares)
    assert figures.averages["wasserstein"] == pytest.approx(distance / scale.width, abs=1e-12)
    if len(set(human)) > 1:
        assert figures.averages["wasserstein_human_range"] == pytest.approx(distance / (max(human) - min(human)), abs=1e-12)
    assert figures.averages["human_sigma"] == pytest.approx(np.std(human) / scale.width, abs=1e-9)
    assert figures.averages["sigma"] == pytest.approx(np.sqrt(np.cov(levels, aweights=shares, ddof=0)) / scale.width, abs=1e-7)
    drawn = np.mean([np.abs(levels - response) @ row for response, row in zip(human, probabilities, strict=True)])
    assert figures.averages["accuracy"] == pytest.approx(1 - drawn / scale.width)
    medians = [np.median(np.repeat(levels, row)) for row in weights]
    assert figures.averages["accuracy_median"] == pytest.approx(1 - np.abs(np.subtract(medians, human)).mean() / scale.width)


def test_the_uniform_guess_by_drawing_is_below_that_by_the_median() -> None:
    scale = Scale(1, 4)
    figures = measure_cell(cell([1, 2, 3, 4], scale), np.full((4, 4), 0.25))
    assert figures is not None
    assert figures.averages["wasserstein"] == pytest.approx(0)
    assert figures.averages["accuracy"] == pytest.approx(1 - np.abs(np.subtract.outer(np.arange(4), np.arange(4))).mean() / 3)
    assert figures.averages["accuracy_median"] == pytest.approx(1 - 1 / 3)  # always 2.5


def test_persons_without_an_answer_count_nowhere_and_a_cell_without_any_has_no_figures() -> None:
    scale = Scale(1, 5)
    some = measured([1, 5, 3], [1, None, 3], scale)
    assert some.averages["accuracy"] == 1 and len(some.rows) == 2
    assert some.human_mean == pytest.approx(0.5)  # what people answered does not depend on the model
    assert measure_cell(cell([1, 5], scale), answers([None, None], scale)) is None


def test_figures_are_means_over_cells_of_a_study_and_then_over_studies() -> None:
    scale = Scale(1, 5)
    pairs = [
        (cell([1] * 50, scale, "a", task="0"), answers([5] * 50, scale)),
        (cell([1], scale, "a", task="1"), answers([1], scale)),
        (cell([2], scale, "b"), answers([3], scale)),
    ]
    found = overall(pairs)
    assert found["wasserstein"] == pytest.approx(((1 + 0) / 2 + 1 / 4) / 2)
    assert found["rmse"] == pytest.approx(np.sqrt(((1 + 0) / 2 + 1 / 16) / 2))
    assert "wasserstein_human_range" not in found  # in no cell did people differ


def test_correlation_and_calibration_are_those_of_scipy_on_positions() -> None:
    generator = np.random.default_rng(0)
    pairs, rows, means = [], [], []
    for number in range(8):
        scale = Scale(1, 5) if number % 2 else Scale(0, 100)
        human = generator.integers(scale.minimum, scale.maximum + 1, 30)
        values = np.clip(human + generator.integers(-2, 3, 30), scale.minimum, scale.maximum)
        pairs.append((cell(human.tolist(), scale, f"s{number // 2}", task=str(number)), answers(values.tolist(), scale)))
        positions = np.stack([values - scale.minimum, human - scale.minimum], axis=1) / scale.width
        rows.append(positions)
        means.append(positions.mean(axis=0))
    found, table = overall(pairs), np.concatenate(rows)
    assert found["pearson"] == pytest.approx(pearsonr(*table.T).statistic)
    assert found["calibration_slope"] == pytest.approx(linregress(*np.transpose(means)).slope)
    bins = np.minimum((table[:, 0] * 10).astype(int), 9)
    expected = sum(abs((table[bins == number, 0] - table[bins == number, 1]).sum()) for number in range(10)) / len(table)
    assert found["calibration_error"] == pytest.approx(expected)


def test_condition_sensitivity_sees_movement_within_tasks_and_not_their_levels() -> None:
    scale = Scale(1, 9)
    human = {("0", "0"): 2, ("1", "0"): 4, ("0", "1"): 8, ("1", "1"): 6}
    cells = {key: cell([value, value], scale, "s", *key) for key, value in human.items()}

    def sensitivity(model: dict[tuple[str, str], int]) -> float | None:
        return overall([(cells[key], answers([value, value], scale)) for key, value in model.items()]).get("condition_sensitivity")

    assert sensitivity({("0", "0"): 7, ("1", "0"): 8, ("0", "1"): 3, ("1", "1"): 2}) == pytest.approx(1)  # right moves, wrong levels
    assert sensitivity({("0", "0"): 4, ("1", "0"): 2, ("0", "1"): 6, ("1", "1"): 8}) == pytest.approx(-1)
    assert sensitivity({("0", "0"): 2, ("1", "0"): 2, ("0", "1"): 8, ("1", "1"): 8}) is None  # never moves, though its levels are right


def test_intervals_are_over_studies_and_differences_are_paired() -> None:
    scale, generator = Scale(1, 7), np.random.default_rng(1)
    cells = [cell(generator.integers(1, 8, 20).tolist(), scale, f"s{number}") for number in range(12)]
    near = [measure_cell(one, answers(np.clip(one.responses + 1, 1, 7).tolist(), scale)) for one in cells]
    far = [measure_cell(one, answers([7] * 20, scale)) for one in cells]
    nothing, asked = np.zeros(12, dtype=np.int64), np.full(12, 20)
    tables = [study_columns(cells, figures, nothing, asked) for figures in (near, far)]
    alone = metrics(tables[0], RESAMPLING)["wasserstein"]
    assert alone.low is not None and alone.high is not None and alone.low <= alone.value <= alone.high
    difference = differences(*tables, RESAMPLING)["wasserstein"]
    assert difference.value == pytest.approx(alone.value - metrics(tables[1], RESAMPLING)["wasserstein"].value)
    assert difference.high is not None and difference.high < 0
    same = differences(tables[0], tables[0], RESAMPLING)["wasserstein"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert metrics(tables[0][:1], RESAMPLING)["wasserstein"].low is None  # one study says nothing of others
