"""Survey data as the SocSci210 data set has them: one record per answer of a person, gathered into cells (study, condition, task).

Fields of a record: study_id, condition_num, task_num, response (a whole number), the prompt (`--set prompt_field=`, default "prompt"),
sample_id where there is one, and the question's scale: scale_min and scale_max, or else what `stimuli` (or without it the prompt)
states. The scale is read per cell, because 71 tasks of SocSci210 change theirs with the condition.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.metrics.survey import Cell
from evaluation.metrics.survey_answers import NO_SCALE, Scale, check_scale, stated_scale
from evaluation.records import Record
from evaluation.suites.survey_splits import STUDY, Split, Training, named, study_of, training_path
from evaluation.tabular import read_rows
from nemo_ext.common.errors import DataError

RESPONSE_OFF_SCALE = "a response off the stated scale"
CELL_OF_SEVERAL_SCALES = "a cell whose questions state several scales"
REMEDY = "Mend the data (scale_min and scale_max say what a scale is), or leave such responses out, counted: --set unusable=leave_out."
SCALE_FIELDS = ("response", "stimuli", "scale_min", "scale_max")


class Response(NamedTuple):
    """What a person was asked and answered. `id` keys the draws of a model's answers."""

    id: str
    prompt: str
    value: int
    scale: Scale
    place: str


@dataclass(frozen=True)
class SurveyItems:
    """Cells in the order of their names, `responses[number]` of each in the order of their ids.

    sha256: over all that is judged, whatever files and order it came in. left_out: responses not judged, by reason.
    """

    path: Path
    split: Split
    cells: list[Cell]
    responses: list[list[Response]]
    sha256: str
    left_out: Counter[str]
    studies_left_out: Counter[str]
    training: Training | None
    warnings: tuple[str, ...] = field(default=())

    @property
    def documents(self) -> int:
        """Responses to judge."""
        return sum(map(len, self.responses))

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of their prompts."""
        return sum(len(one.prompt.encode()) for members in self.responses for one in members)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "path": str(self.path.absolute()),
            "kind": "survey responses",
            "split": self.split.as_dict(),
            "sha256": self.sha256,
            "documents": self.documents,
            "bytes": self.bytes,
            "studies": len({cell.study for cell in self.cells}),
            "cells": len(self.cells),
            "left_out": dict(sorted(self.left_out.items())),
            "studies_left_out": dict(sorted(self.studies_left_out.items())),
            "training": self.training.as_dict() if self.training else None,
        }


def read_items(path: Path, split: Split, prompt_field: str, leave_out: bool, most_per_cell: int | None) -> SurveyItems:
    """Read and check what `split` names, without training data.

    leave_out: count what has no usable scale, instead of refusing it. most_per_cell: keep that many responses of each cell, the same
    ones whatever else is chosen. Raises DataError naming file and line.
    """
    gathered = _Gathered(split, prompt_field, leave_out)
    for record in read_rows(split.path, (prompt_field, STUDY, "condition_num", "task_num", "sample_id", *SCALE_FIELDS)):
        gathered.add(record)
    cells = gathered.finish()
    if most_per_cell is not None:
        cells = {key: _draw(members, most_per_cell, gathered.left_out) for key, members in cells.items()}
    ordered = {key: sorted(members, key=lambda one: one.id) for key, members in sorted(cells.items())}
    found = [Cell(*key, members[0].scale, np.array([one.value for one in members], dtype=np.int64)) for key, members in ordered.items()]
    if not found:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in gathered.left_out.items()) or "no record"
        raise DataError(f"{split.path} holds nothing to judge ({reasons}). Check the path and the split.")
    responses = list(ordered.values())
    return SurveyItems(
        path,
        split,
        found,
        responses,
        _digest(found, responses),
        gathered.left_out,
        gathered.studies_left_out,
        None,
        _warnings(split, found),
    )


class _Gathered:
    """Records by cell, and what was left out of them."""

    def __init__(self, split: Split, prompt_field: str, leave_out: bool) -> None:
        self._split, self._prompt_field, self._leave_out = split, prompt_field, leave_out
        self._cells: dict[tuple[str, str, str], list[Response]] = defaultdict(list)
        self._places: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self.studies_left_out: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Take a record of the split's studies."""
        study = study_of(record)
        if self._split.studies is not None and study not in self._split.studies:
            self.left_out["of another split"] += 1
            return
        identity = str(record.fields.get("sample_id", record.name))
        if identity in self._places:
            raise DataError(
                f"{record.place} has the sample_id {identity!r} of {self._places[identity]}. Expected each once: remove what is twice."
            )
        self._places[identity] = record.place
        value, scale = response_of(record), scale_of(record, self._prompt_field)
        prompt = _text(record, self._prompt_field)
        key = study, _name(record, "condition_num"), _name(record, "task_num")
        if isinstance(scale, str):
            self._leave(scale, study, record.place)
        elif value not in scale:
            self._leave(RESPONSE_OFF_SCALE, study, f"{record.place} (response {value}, scale {scale})")
        else:
            self._cells[key].append(Response(identity, prompt, value, scale, record.place))

    def finish(self) -> dict[tuple[str, str, str], list[Response]]:
        """The cells, without those on several scales."""
        for key in [key for key, members in self._cells.items() if len({one.scale for one in members}) > 1]:
            members = self._cells.pop(key)
            scales = " and ".join(sorted({str(one.scale) for one in members}))
            self._leave(CELL_OF_SEVERAL_SCALES, key[0], f"{members[0].place} (cell {', '.join(key)}: {scales})", len(members))
        return self._cells

    def _leave(self, reason: str, study: str, place: str, count: int = 1) -> None:
        if not self._leave_out:
            raise DataError(f"{place} has {reason}, so its answers cannot be judged. {REMEDY}")
        self.left_out[reason] += count
        self.studies_left_out[study] += count


def response_of(record: Record) -> int:
    """The answer of a person. Raises DataError unless it is a whole number."""
    value = record.fields.get("response")
    if isinstance(value, float) and value.is_integer():  # as tables with a missing value write whole numbers
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{record.place} has the response {value!r:.60}. Expected a whole number; mend or remove the record.")
    return value


def scale_of(record: Record, prompt_field: str) -> Scale | str:
    """The scale of the question, or why there is none."""
    ends = [record.fields.get(name) for name in ("scale_min", "scale_max")]
    if any(end is not None for end in ends):
        if not all(isinstance(end, int) and not isinstance(end, bool) for end in ends):
            raise DataError(f"{record.place} has scale_min {ends[0]!r} and scale_max {ends[1]!r}. Expected two whole numbers, or neither.")
        return check_scale(*ends)  # type: ignore[arg-type]
    text = record.fields.get("stimuli", record.fields.get(prompt_field))
    return stated_scale(text) if isinstance(text, str) else NO_SCALE


def _text(record: Record, name: str) -> str:
    text = record.fields.get(name)
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{record.place} has the {name} {text!r:.60}. Expected the text of a question; name its field with --set prompt_field=."
        )
    return text


def _name(record: Record, name: str) -> str:
    value = record.fields.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{record.place} has the {name} {value!r:.60}. Expected a whole number or a name; mend or remove the record.")
    return str(value)


def _draw(members: list[Response], most: int, left_out: Counter[str]) -> list[Response]:
    if len(members) > most:
        left_out["beyond most_per_cell"] += len(members) - most
    return sorted(members, key=lambda one: hashlib.sha256(one.id.encode()).digest())[:most]


def _digest(cells: Sequence[Cell], responses: Sequence[Sequence[Response]]) -> str:
    digest = hashlib.sha256()
    for cell, members in zip(cells, responses, strict=True):
        head = [cell.study, cell.condition, cell.task, cell.scale.minimum, cell.scale.maximum]
        digest.update(json.dumps([*head, sorted((one.prompt, one.value) for one in members)]).encode())
    return digest.hexdigest()


def _warnings(split: Split, cells: Sequence[Cell]) -> tuple[str, ...]:
    found = list(split.warnings)
    missing = (split.studies or frozenset()) - {cell.study for cell in cells}
    if missing:
        found.append(f"Of the split {split.name}, {named(missing)} have nothing to judge in the data.")
    return tuple(found)


def read_training(path: Path, prompt_field: str) -> Training:
    """Studies and answers of the data a model was trained on; answers without a usable scale count only with their study."""
    file = training_path(path)
    studies: set[str] = set()
    answers: dict[Scale, Counter[int]] = defaultdict(Counter)
    for record in read_rows(file, (STUDY, prompt_field, *SCALE_FIELDS)):
        studies.add(study_of(record))
        scale = scale_of(record, prompt_field)
        if isinstance(scale, Scale) and "response" in record.fields and (value := response_of(record)) in scale:
            answers[scale][value] += 1
    return Training(path, frozenset(studies), dict(answers))
