"""Questions of one's own: multiple choice and free text from JSONL.

Data: `prompt`, `options` and `gold` (the value of an option, never its number), or `prompt` and `answers` (texts that are accepted as
what the model writes, see `evaluation.choice_scoring.normalise`; `exact_case` if letters must have their case). Optional: `id`,
`category`, `language` of the prompt, `question` (what stands above the options where they are shown; default: the prompt), `cluster`
(what items have in common that are not independent of one another).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.choice import ChoiceItem, GenerativeItem, Item
from evaluation.choice_suite import ChoiceSuite, TextOptions
from evaluation.records import Record, read_records
from evaluation.suites import Settings
from nemo_ext.common.errors import DataError


@dataclass(frozen=True)
class QuestionOptions(TextOptions):
    """language: of prompts whose record does not say it."""

    language: str = ""


class MultipleChoice(ChoiceSuite):
    """The suite, see the module's text for the data and `evaluation.choice_scoring` for the rules."""

    name = "multiple_choice"
    version = 1
    options = QuestionOptions

    def read_items(self, path: Path, settings: Settings) -> Iterator[Item]:
        """The items of all files, in order."""
        language = self.chosen(settings).language
        return (_item(record, language) for record in read_records(path))


SUITE = MultipleChoice()


def _item(record: Record, language: str) -> Item:
    fields = record.fields
    common: dict[str, Any] = {"id": record.id, "prompt": record.text("prompt"), "where": record.place}
    common |= {"language": language} | {name: record.text(name) for name in ("category", "language", "cluster") if name in fields}
    if "answers" in fields:
        exact_case = fields.get("exact_case") or False
        if not isinstance(exact_case, bool):
            raise DataError(f"{record.place} has {exact_case!r} in field 'exact_case', expected true or false. Mend the line.")
        return GenerativeItem(**common, answers=record.texts("answers"), exact_case=exact_case)
    question = record.text("question") if "question" in fields else None
    return ChoiceItem(**common, options=record.texts("options"), gold=record.text("gold"), question=question)
