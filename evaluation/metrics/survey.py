"""How well a model's answers to survey questions agree with people's, per cell (study, condition, task) and over studies.

Answers are probabilities over the whole numbers of the stated scale, one row per person: the shares of a row's sampled answers, or
the model's own probabilities. Distances are divided by a width, so that scales of any length count the same:

- wasserstein: Wasserstein-1 distance between the model's and people's answers in a cell, divided by the width of the stated scale
- wasserstein_human_range: the same distance, divided by the difference of the largest and smallest human answer in the cell. This
  reproduces the published uniform guess of SocSci210, 0.203 (Kolluri et al. 2025, arXiv:2509.05830); the stated scale gives 0.168
- accuracy: 1 - |answer - response| / width for an answer drawn from the row (the published convention); accuracy_median: for the
  row's median, by which a uniform guess scores 0.70 instead of 0.61
- mae, rmse: of the row's mean, in widths
- sigma: standard deviation of the model's answers in a cell, in widths; sigma_ratio: divided by that of people

These are means over the cells of a study, then over studies, so that a large study counts as much as a small one. Others pool:

- pearson: of the row's mean and the response over all rows, as positions from 0 to 1 on their scale. On raw numbers it would reward
  knowing that one question goes to 100 and another to 5
- calibration_error: rows in ten bins by the position of their mean; mean distance of the bins' mean response from it, by rows
- calibration_slope: of human cell means on the model's; below 1, the model exaggerates the differences between cells
- condition_sensitivity: Pearson r of cell means, each centred within its (study, task): does the model move with the condition?
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.metrics.survey_answers import Scale
from evaluation.statistics import Bootstrap, FloatArray, Interval

IntArray = npt.NDArray[np.int64]
BINS = 10
SMALLEST_VARIANCE = 1e-10  # of positions from 0 to 1; less is rounding, and a correlation with it means nothing


@dataclass(frozen=True)
class Cell:
    """Responses `[people]` to one task of a study under one condition, all on `scale`."""

    study: str
    condition: str
    task: str
    scale: Scale
    responses: IntArray


@dataclass(frozen=True)
class CellFigures:
    """Figures of a cell with answers (see the module's text); `rows` `[answered, 2]`: position of the row's mean, and of its response."""

    averages: dict[str, float]
    mean: float
    human_mean: float
    rows: FloatArray


def measure_cell(cell: Cell, probabilities: FloatArray) -> CellFigures | None:
    """Figures of `probabilities` `[people, levels]`, whose rows sum to 1, or to 0 where there is no answer; None without any answer."""
    answered = probabilities.sum(axis=1) > 0
    if not answered.any():
        return None
    model, levels = probabilities[answered], np.arange(cell.scale.levels, dtype=np.float64)
    human, width = (cell.responses - cell.scale.minimum).astype(np.float64), cell.scale.width
    responses = human[answered]
    shares, human_shares = model.mean(axis=0), np.bincount(human.astype(np.int64), minlength=cell.scale.levels) / len(human)
    # Between neighbouring levels both distribution functions are constant, and the levels are 1 apart.
    distance = float(np.abs(np.cumsum(shares - human_shares)).sum())
    human_range = float(human.max() - human.min())
    means, medians = model @ levels, _medians(model)
    drawn = (model * np.abs(levels - responses[:, None])).sum(axis=1)
    averages = {
        "wasserstein": distance / width,
        "wasserstein_human_range": distance / human_range if human_range else np.nan,
        "accuracy": 1 - float(drawn.mean()) / width,
        "accuracy_median": 1 - float(np.abs(medians - responses).mean()) / width,
        "mae": float(np.abs(means - responses).mean()) / width,
        "mse": float(((means - responses) ** 2).mean()) / width**2,
        "sigma": _deviation(shares, levels) / width,
        "human_sigma": _deviation(human_shares, levels) / width,
    }
    rows = np.stack([means, responses], axis=1) / width
    return CellFigures(averages, float(shares @ levels) / width, float(human.mean()) / width, rows)


def _medians(probabilities: FloatArray) -> FloatArray:
    """Median of each row: halfway between the two where half of the probability lies on either side."""
    reached = np.cumsum(probabilities, axis=1)
    lower, upper = (reached >= 0.5 - 1e-9).argmax(axis=1), (reached > 0.5 + 1e-9).argmax(axis=1)
    medians: FloatArray = (lower + upper) / 2
    return medians


def _deviation(shares: FloatArray, levels: FloatArray) -> float:
    return float(np.sqrt(max(0.0, shares @ levels**2 - (shares @ levels) ** 2)))


AVERAGES = ("wasserstein", "wasserstein_human_range", "accuracy", "accuracy_median", "mae", "mse", "sigma", "human_sigma")
MOMENTS = ("n", "x", "y", "xx", "yy", "xy")
# The last column decides the order in which studies are drawn: the primary figure, as where `sibol compare` pairs the studies.
COLUMNS = (
    *("failed", "asked"),
    *(f"bin_{name}_{number}" for number in range(BINS) for name in ("x", "y")),
    *(f"{group}_{name}" for group in ("row", "cell", "centred") for name in MOMENTS),
    *(f"{name}{suffix}" for name in reversed(AVERAGES) for suffix in ("_studies", "")),
)


def study_columns(cells: Sequence[Cell], figures: Sequence[CellFigures | None], failed: IntArray, asked: IntArray) -> FloatArray:
    """What figures over studies are made of: `[studies, len(COLUMNS)]`, studies as `studies_of` orders them.

    failed, asked `[cells]`: samples that gave no answer, and all.
    """
    studies = studies_of(cells)
    place = {name: number for number, name in enumerate(studies)}
    members: list[list[int]] = [[] for _ in studies]
    for number, cell in enumerate(cells):
        members[place[cell.study]].append(number)
    rows = []
    for numbers in members:
        sums = _study_sums([(cells[number], found) for number in numbers if (found := figures[number]) is not None])
        sums |= {"failed": float(failed[numbers].sum()), "asked": float(asked[numbers].sum())}
        rows.append([sums[name] for name in COLUMNS])
    return np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))


def studies_of(cells: Sequence[Cell]) -> list[str]:
    """Names of the studies, sorted."""
    return sorted({cell.study for cell in cells})


def _study_sums(measured: Sequence[tuple[Cell, CellFigures]]) -> dict[str, float]:
    """Of one study, by name of the column; without any answered cell all are 0."""
    sums = dict.fromkeys(COLUMNS, 0.0)
    for name in AVERAGES:
        values = np.array([figures.averages[name] for _, figures in measured])
        known = values[np.isfinite(values)]
        if len(known):
            sums |= {name: float(known.mean()), f"{name}_studies": 1.0}
    rows = np.concatenate([figures.rows for _, figures in measured] or [np.empty((0, 2))])
    means = np.array([(figures.mean, figures.human_mean) for _, figures in measured]).reshape(-1, 2)
    for group, table in (("row", rows), ("cell", means), ("centred", _centred(measured))):
        sums |= _moments(group, table)
    bins = np.minimum((rows[:, 0] * BINS).astype(np.int64), BINS - 1)
    for column, name in enumerate(("x", "y")):
        totals = np.bincount(bins, weights=rows[:, column], minlength=BINS)
        sums |= {f"bin_{name}_{number}": float(total) for number, total in enumerate(totals)}
    return sums


def _centred(measured: Sequence[tuple[Cell, CellFigures]]) -> FloatArray:
    """Cell means less the mean of their task over its conditions; tasks with a single condition say nothing."""
    tasks: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for cell, figures in measured:
        tasks[cell.task].append((figures.mean, figures.human_mean))
    tables = [np.array(pairs) - np.mean(pairs, axis=0) for pairs in tasks.values() if len(pairs) > 1]
    return np.concatenate(tables) if tables else np.empty((0, 2))


def _moments(group: str, table: FloatArray) -> dict[str, float]:
    x, y = table[:, 0], table[:, 1]
    values = (len(table), x.sum(), y.sum(), x @ x, y @ y, x @ y)
    return {f"{group}_{name}": float(value) for name, value in zip(MOMENTS, values, strict=True)}


class _Sums:
    """Columns by name of sums `[..., columns]`; `first` is where the columns of a model begin."""

    def __init__(self, sums: FloatArray, first: int) -> None:
        self._sums, self._first = sums, first

    def __getitem__(self, name: str) -> FloatArray:
        column: FloatArray = self._sums[..., self._first + COLUMNS.index(name)]
        return column


def _quotient(above: FloatArray, below: FloatArray, smallest: float = 0.0) -> FloatArray:
    """NaN where `below` is no larger than `smallest`."""
    known = below > smallest
    return np.where(known, above / np.where(known, below, 1.0), np.nan)


def _average(name: str) -> Callable[[_Sums], FloatArray]:
    return lambda sums: _quotient(sums[name], sums[f"{name}_studies"])


def _variances(sums: _Sums, group: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Variance of x, of y, and their covariance."""
    mean = {name: _quotient(sums[f"{group}_{name}"], sums[f"{group}_n"]) for name in MOMENTS[1:]}
    return mean["xx"] - mean["x"] ** 2, mean["yy"] - mean["y"] ** 2, mean["xy"] - mean["x"] * mean["y"]


def _correlation(group: str) -> Callable[[_Sums], FloatArray]:
    def statistic(sums: _Sums) -> FloatArray:
        of_x, of_y, of_both = _variances(sums, group)
        smallest = np.fmin(of_x, of_y)
        return np.where(smallest > SMALLEST_VARIANCE, _quotient(of_both, np.sqrt(np.abs(of_x * of_y))), np.nan)

    return statistic


def _slope(sums: _Sums) -> FloatArray:
    of_x, _, of_both = _variances(sums, "cell")
    return _quotient(of_both, of_x, SMALLEST_VARIANCE)


def _calibration_error(sums: _Sums) -> FloatArray:
    distances = sum(np.abs(sums[f"bin_x_{number}"] - sums[f"bin_y_{number}"]) for number in range(BINS))
    return _quotient(np.asarray(distances), sums["row_n"])


STATISTICS: dict[str, Callable[[_Sums], FloatArray]] = {
    **{name: _average(name) for name in AVERAGES[:5]},
    "rmse": lambda sums: np.sqrt(_average("mse")(sums)),
    "pearson": _correlation("row"),
    "sigma": _average("sigma"),
    "sigma_ratio": lambda sums: _quotient(sums["sigma"], sums["human_sigma"]),
    "calibration_error": _calibration_error,
    "calibration_slope": _slope,
    "condition_sensitivity": _correlation("centred"),
    "parse_failure_rate": lambda sums: _quotient(sums["failed"], sums["asked"]),
}
COMPARED = ("wasserstein", "wasserstein_human_range", "accuracy", "accuracy_median", "pearson", "condition_sensitivity")


def metrics(columns: FloatArray, resampling: tuple[int, float, int], names: Sequence[str] = tuple(STATISTICS)) -> dict[str, Interval]:
    """Figures of `study_columns` with their intervals over studies (resamples, confidence, seed); those without meaning are left out."""
    return _defined(Bootstrap(columns, *resampling), {name: _statistic(name) for name in names})


def differences(model: FloatArray, baseline: FloatArray, resampling: tuple[int, float, int]) -> dict[str, Interval]:
    """Figures of the model less those of the baseline, of the same studies and cells."""

    def difference(name: str) -> Callable[[FloatArray], FloatArray]:
        ours, theirs = _statistic(name), _statistic(name, len(COLUMNS))
        return lambda sums: ours(sums) - theirs(sums)

    bootstrap = Bootstrap(np.concatenate([model, baseline], axis=1), *resampling)
    return _defined(bootstrap, {name: difference(name) for name in COMPARED})


def _statistic(name: str, first: int = 0) -> Callable[[FloatArray], FloatArray]:
    return lambda sums: STATISTICS[name](_Sums(sums, first))


def _defined(bootstrap: Bootstrap, statistics: dict[str, Callable[[FloatArray], FloatArray]]) -> dict[str, Interval]:
    """Without figures that are not defined, and without the ends of those that are not for some of the resamples."""
    found = {}
    for name, statistic in statistics.items():
        if not np.isnan(statistic(bootstrap.total)):
            interval = bootstrap.interval(statistic)
            known = interval.low is not None and not math.isnan(interval.low)
            found[name] = interval if known else Interval(interval.value)
    return found
