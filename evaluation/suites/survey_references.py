"""What trivial models, and people themselves, score on a survey: without them a distance says little."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from evaluation.metrics.survey import STATISTICS, Cell, IntArray, measure_cell, metrics, study_columns
from evaluation.metrics.survey_answers import Scale
from evaluation.statistics import FloatArray, Interval
from evaluation.suites.survey_items import SurveyItems
from evaluation.suites.survey_splits import Training

RESAMPLES_OF_PEOPLE = 10
SPREAD = ("wasserstein", "wasserstein_human_range", "accuracy", "sigma", "sigma_ratio")
WITHOUT_ROWS = tuple(name for name in STATISTICS if name != "parse_failure_rate")

# Wasserstein-1 distances on 40 unseen studies, Table 2 of Kolluri et al. 2025 (arXiv:2509.05830) as others quote it.
PUBLISHED = {"published uniform": 0.203, "published GPT-4o": 0.174, "published Socrates 14B": 0.151, "published people": 0.125}
PUBLISHED_NOTE = (
    "Published figures are for orientation: Table 2 of arXiv:2509.05830 as others quote it, of all 40 studies. How its distances were "
    "scaled is not said; dividing by the range of human answers reproduces its uniform guess."
)


def references(items: SurveyItems, resampling: tuple[int, float, int]) -> dict[str, dict[str, Interval]]:
    """Trivial models on all cells, with intervals over studies; the published figures where the split is the published one.

    uniform: every answer of the scale is as likely. midpoint: always the middle of the scale (either of two). majority: always the
    answer that the training data have most often on the same scale, the middle where they have no such scale. human: a person drawn
    from the cell, with replacement, for every person; closer than that, a distance is noise.
    """
    found = {"uniform": _constant(items, resampling, uniform), "midpoint": _constant(items, resampling, midpoint)}
    if items.training is not None:
        training = items.training
        found["majority"] = _constant(items, resampling, lambda scale: majority(scale, training))
    found["human"] = metrics(_resampled_people(items.cells, resampling[2]), resampling, SPREAD)
    if items.split.is_published:
        found |= {name: {"wasserstein_human_range": Interval(value)} for name, value in PUBLISHED.items()}
    return found


def uniform(scale: Scale) -> FloatArray:
    """Probabilities `[levels]`."""
    return np.full(scale.levels, 1 / scale.levels)


def midpoint(scale: Scale) -> FloatArray:
    """Probabilities `[levels]`, halves for the two answers around the middle of a scale of even length."""
    shares = np.zeros(scale.levels)
    for place in (scale.width // 2, (scale.width + 1) // 2):
        shares[place] += 0.5
    return shares


def majority(scale: Scale, training: Training) -> FloatArray:
    """Probabilities `[levels]`; of answers that are equally frequent, the smallest."""
    counts = training.answers.get(scale)
    if not counts:
        return midpoint(scale)
    best = min(counts, key=lambda value: (-counts[value], value))
    shares = np.zeros(scale.levels)
    shares[best - scale.minimum] = 1
    return shares


def cells_without_majority(cells: Iterable[Cell], training: Training) -> int:
    """How many cells stand on a scale that the training data do not have."""
    return sum(not training.answers.get(cell.scale) for cell in cells)


def _constant(items: SurveyItems, resampling: tuple[int, float, int], shares: Callable[[Scale], FloatArray]) -> dict[str, Interval]:
    figures = [measure_cell(cell, np.tile(shares(cell.scale), (len(cell.responses), 1))) for cell in items.cells]
    nothing = np.zeros(len(items.cells), dtype=np.int64)
    return metrics(study_columns(items.cells, figures, nothing, _people(items.cells)), resampling, WITHOUT_ROWS)


def _people(cells: Iterable[Cell]) -> IntArray:
    return np.array([len(cell.responses) for cell in cells], dtype=np.int64)


def _resampled_people(cells: list[Cell], seed: int) -> FloatArray:
    """Mean of `study_columns` over resamples of each cell; draws are keyed by the seed and the cell's name."""
    people = _people(cells)
    tables = []
    for number in range(RESAMPLES_OF_PEOPLE):
        figures = []
        for cell in cells:
            key = f"{seed}\n{number}\n{cell.study}\n{cell.condition}\n{cell.task}"
            generator = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
            drawn = generator.choice(cell.responses, len(cell.responses)) - cell.scale.minimum
            probabilities = np.zeros((len(drawn), cell.scale.levels))
            probabilities[np.arange(len(drawn)), drawn] = 1
            figures.append(measure_cell(cell, probabilities))
        tables.append(study_columns(cells, figures, np.zeros_like(people), people))
    return np.mean(tables, axis=0)
