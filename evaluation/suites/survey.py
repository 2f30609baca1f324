"""The suite `survey`: how close a model's answers to the questions of social-science experiments come to those of people.

The measures are defined in `evaluation.metrics.survey`. Every interval is a bootstrap over studies, because answers within one have
questions and people in common. What a model did not answer on the scale is a parse failure: counted, named, and never made up. A
cell (study, condition, task) without any parsed answer is left out of the model's figures, and their number is reported.

per_document.jsonl has a row per study, so that `sibol compare` pairs studies; cells.jsonl and answers.jsonl beside it have every
cell and every answer.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from evaluation.loading import ModelFolder
from evaluation.metrics.survey import CellFigures, differences, measure_cell, metrics, studies_of, study_columns
from evaluation.models import Advance
from evaluation.predictions import PREDICTIONS, PredictionFile
from evaluation.statistics import FloatArray, Interval
from evaluation.suites import Settings, Summary
from evaluation.suites.base import SuiteDefaults
from evaluation.suites.survey_answering import CellAnswers, SurveyOptions, check_options, from_file, generate, likelihood
from evaluation.suites.survey_items import SurveyItems, read_items, read_training
from evaluation.suites.survey_references import PUBLISHED_NOTE, cells_without_majority, references
from evaluation.suites.survey_splits import choose_split, refuse_seen

FEW_STUDIES = 20  # with fewer, a percentile bootstrap is too narrow
PER_STUDY = ("wasserstein", "wasserstein_human_range", "accuracy", "accuracy_median", "mae", "sigma_ratio", "parse_failure_rate")


@dataclass(frozen=True)
class SurveyScores:
    """A model's answers, cell by cell, and their figures; None for a cell without an answer."""

    items: SurveyItems
    answers: list[CellAnswers]
    figures: list[CellFigures | None]

    @property
    def failed(self) -> np.ndarray:
        """Samples without an answer, per cell."""
        return np.array([sum(one.reasons.values()) for one in self.answers], dtype=np.int64)

    @property
    def asked(self) -> np.ndarray:
        """All samples, per cell."""
        return np.array([one.asked for one in self.answers], dtype=np.int64)

    @property
    def reasons(self) -> Counter[str]:
        """Samples without an answer, by reason."""
        return sum((one.reasons for one in self.answers), Counter())

    def columns(self, kept: Iterable[bool] | None = None) -> FloatArray:
        """Sums per study, of the cells that are `kept`."""
        masked = [one if keep else None for one, keep in zip(self.figures, kept or [True] * len(self.figures), strict=True)]
        return study_columns(self.items.cells, masked, self.failed, self.asked)


class Survey(SuiteDefaults):
    """The suite, see the module's text."""

    name = "survey"
    version = 1
    primary_metric = "wasserstein"
    lower_is_better = True
    interval = "percentile bootstrap over studies"
    options = SurveyOptions
    reads_predictions = True
    unused = MappingProxyType({**SuiteDefaults.unused, "text_field": "--text-field"})

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse options that do not go together."""
        super().check(settings, [folder for folder in folders if not isinstance(folder, PredictionFile)])
        check_options(self.chosen(settings), tuple(settings.options))

    def read(self, path: Path, settings: Settings) -> SurveyItems:
        """Cells of the split, none of whose studies is in another split or in the training data."""
        chosen: SurveyOptions = self.chosen(settings)
        split = choose_split(path, settings.split, chosen.mapping)
        leave_out = chosen.unusable == "leave_out"
        items = read_items(path, split, chosen.prompt_field, leave_out, chosen.most_per_cell)
        if chosen.train is None:
            return items
        training = read_training(Path(chosen.train), chosen.prompt_field)
        refuse_seen(training, studies_of(items.cells))
        return replace(items, training=training)

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> Any:
        """A causal model, or the file of predictions itself."""
        return folder if isinstance(folder, PredictionFile) else super().load(folder, settings, device)

    def describe(self, model: Any, settings: Settings) -> dict[str, Any]:
        """How it was asked, defaults included."""
        if isinstance(model, PredictionFile):
            return {"asked": {"answer": PREDICTIONS}}
        return super().describe(model, settings) | {"asked": asdict(self.chosen(settings))}

    def score(self, model: Any, items: SurveyItems, settings: Settings, advance: Advance) -> SurveyScores:
        """The answers and their figures."""
        chosen: SurveyOptions = self.chosen(settings)
        if isinstance(model, PredictionFile):
            answers = from_file(model.path, items)
        else:
            answers = (generate if chosen.answer == "generate" else likelihood)(model, items, chosen, advance)
        figures = [measure_cell(cell, one.probabilities) for cell, one in zip(items.cells, answers, strict=True)]
        return SurveyScores(items, answers, figures)

    def summarise(self, scores: Sequence[SurveyScores], settings: Settings) -> Summary:
        """Figures over studies; against a baseline, the difference on the cells that both answered."""
        model, *others = scores
        baseline = others[0] if others else None
        resampling = (settings.resamples, settings.confidence, settings.seed)
        trivial = references(model.items, resampling)
        return Summary(
            metrics=_metrics(model, resampling),
            references=trivial,
            baseline_metrics=_metrics(baseline, resampling) if baseline else None,
            baseline_references=trivial if baseline else None,
            comparison=_comparison(model, baseline, resampling) if baseline else None,
            domains=_studies(model),
            rows=_rows(model, baseline),
            warnings=_warnings(scores),
            files={"cells.jsonl": _lines(_cell_rows(scores)), "answers.jsonl": _lines(_answer_rows(scores))},
        )


SUITE = Survey()


def _metrics(scores: SurveyScores, resampling: tuple[int, float, int]) -> dict[str, Interval]:
    unanswered = sum(one is None for one in scores.figures)
    found = metrics(scores.columns(), resampling) | {"cells_left_out": Interval(unanswered)}
    return {"wasserstein": Interval(math.inf)} | found  # infinity, which results.json writes as null, where nothing was answered


def _comparison(model: SurveyScores, baseline: SurveyScores, resampling: tuple[int, float, int]) -> dict[str, Interval]:
    both = [one is not None and other is not None for one, other in zip(model.figures, baseline.figures, strict=True)]
    return {"wasserstein": Interval(math.inf)} | differences(model.columns(both), baseline.columns(both), resampling)


def _figures_of_studies(scores: SurveyScores) -> list[dict[str, float]]:
    """Per study, what is defined of PER_STUDY."""
    return [{name: interval.value for name, interval in metrics(row[None], (1, 0.5, 0), PER_STUDY).items()} for row in scores.columns()]


def _studies(scores: SurveyScores) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for study, figures in zip(studies_of(scores.items.cells), _figures_of_studies(scores), strict=True):
        sizes = [len(cell.responses) for cell in scores.items.cells if cell.study == study]
        shown = {"wasserstein": math.inf} | figures
        table[study] = {"documents": sum(sizes), "cells": len(sizes), **{name: _alone(value) for name, value in shown.items()}}
    return table


def _alone(value: float) -> dict[str, float | None]:
    """A figure of one study, which says nothing of others; null where there is none."""
    return {"value": value if math.isfinite(value) else None, "low": None, "high": None}


def _rows(model: SurveyScores, baseline: SurveyScores | None) -> list[dict[str, Any]]:
    """One per study. A study without an answer has no score, and then `sibol compare` says that nothing can be paired."""
    tables = [("", _figures_of_studies(model))] + ([("baseline_", _figures_of_studies(baseline))] if baseline else [])
    rows = []
    for number, study in enumerate(studies_of(model.items.cells)):
        row: dict[str, Any] = {"id": study}
        for prefix, table in tables:
            row[f"{prefix}score"] = table[number].get("wasserstein")
            row |= {f"{prefix}{name}": value for name, value in table[number].items()}
        rows.append(row)
    return rows


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _prefixes(scores: Sequence[SurveyScores]) -> Iterable[tuple[str, SurveyScores]]:
    return zip(("", "baseline_"), scores, strict=False)


def _cell_rows(scores: Sequence[SurveyScores]) -> Iterable[dict[str, Any]]:
    for number, cell in enumerate(scores[0].items.cells):
        row: dict[str, Any] = {"study": cell.study, "condition": cell.condition, "task": cell.task, "people": len(cell.responses)}
        row |= {"scale": [cell.scale.minimum, cell.scale.maximum], "human_mean": float(cell.responses.mean())}
        for prefix, one in _prefixes(scores):
            figures, answers = one.figures[number], one.answers[number]
            averages = {name: value for name, value in figures.averages.items() if math.isfinite(value)} if figures else {}
            row |= {f"{prefix}{name}": value for name, value in averages.items()}
            row |= {f"{prefix}mean": cell.scale.minimum + figures.mean * cell.scale.width if figures else None}
            row |= {f"{prefix}asked": answers.asked, f"{prefix}failures": dict(answers.reasons)}
        yield row


def _answer_rows(scores: Sequence[SurveyScores]) -> Iterable[dict[str, Any]]:
    items = scores[0].items
    for number, (cell, members) in enumerate(zip(items.cells, items.responses, strict=True)):
        for place, person in enumerate(members):
            row = {"id": person.id, "study": cell.study, "condition": cell.condition, "task": cell.task, "response": person.value}
            for prefix, one in _prefixes(scores):
                row |= {f"{prefix}{name}": value for name, value in _answer(one.answers[number], place).items()}
            yield row


def _answer(answers: CellAnswers, place: int) -> dict[str, Any]:
    if not answers.answers:
        return {"probabilities": answers.probabilities[place].tolist()}
    answer = answers.answers[place]
    return {"answers": list(answer.values)} | ({"failures": [list(one) for one in answer.failures]} if answer.failures else {})


def _warnings(scores: Sequence[SurveyScores]) -> list[str]:
    items = scores[0].items
    studies, found = len(studies_of(items.cells)), []
    if studies < FEW_STUDIES:
        found.append(f"The intervals rest on {studies} studies; with fewer than {FEW_STUDIES} they are too narrow.")
    if items.split.is_published:
        found.append(PUBLISHED_NOTE)
    if items.left_out:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(items.left_out.items()))
        found.append(f"Responses that are not judged: {counts}.")
    alike = sum(len(set(cell.responses.tolist())) == 1 for cell in items.cells)
    if alike:
        found.append(f"In {alike} of {len(items.cells)} cells all people answered alike; wasserstein_human_range leaves them out.")
    if items.training and (without := cells_without_majority(items.cells, items.training)):
        found.append(
            f"The training data have no answers on the scales of {without} of {len(items.cells)} cells; majority takes the middle."
        )
    for label, one in zip(("model", "baseline"), scores, strict=False):
        if one.reasons:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in one.reasons.most_common())
            share = one.failed.sum() / one.asked.sum()
            found.append(f"Of the {label}'s {one.asked.sum():,} answers, {share:.2%} were not understood ({counts}) and count nowhere.")
        unanswered = sum(figures is None for figures in one.figures)
        if unanswered:
            found.append(
                f"The {label} has no answer on the scale in {unanswered} of {len(one.figures)} cells, which its figures leave out; "
                "uniform, midpoint, majority and human are over all cells, and the difference from a baseline over those both answered."
            )
    return found
