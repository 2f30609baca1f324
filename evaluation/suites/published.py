"""What the suites on published benchmark files share: which files of a folder are theirs, multiple choice or free answers, language.

A folder may hold the files of several benchmarks, as `sibol evaluate generate` and the published repository lay them out; a suite
reads those with its names. A file that is named itself is read whatever its name. Whether a line is multiple choice is seen in the
line. Prompts are scored as they are published, the option after a space; for free answers the cue "Answer:" or "Sagot:" follows on a
line of its own where the prompt does not end in one, except in chats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evaluation.choice import ChoiceItem, ChoiceItems, GenerativeItem, Item
from evaluation.choice_scoring import CUES
from evaluation.choice_suite import ChoiceSuite, TextOptions
from evaluation.records import Record, find_files, read_records
from evaluation.suites import Settings
from nemo_ext.common.errors import DataError

Form = Literal["mcq", "gen", "both"]
ENDINGS = (".jsonl", ".jsonl.gz")
WRITTEN = " (written)"  # behind the categories of free answers


@dataclass(frozen=True)
class FormOptions(TextOptions):
    """form: mcq scores options, gen what the model writes, both does both; accuracy is then the mean over the items of both."""

    form: Form = "mcq"


@dataclass(frozen=True)
class LanguageOptions(FormOptions):
    """language: which of an item's two prompts is used."""

    language: Literal["en", "tl"] = "en"


class PublishedSuite(ChoiceSuite):
    """A suite of such files. `files`: how the names of its files begin, each followed by _mcq or _gen."""

    options = FormOptions
    files: tuple[str, ...]

    def item(self, record: Record, family: str, chosen: Any) -> Item:
        """The item of a line; `family` is which of `files` the line stands in."""
        raise AssertionError(f"{type(self).__name__} has no reader")

    def read_items(self, path: Path, settings: Settings) -> Iterator[Item]:
        """The items of the form that was chosen."""
        chosen = self.chosen(settings)
        for file, family in self._found(path):
            for record in read_records(file):
                item = self.item(record, family, chosen)
                if chosen.form in ("both", form_of(item)):
                    yield item if isinstance(item, ChoiceItem) or chosen.chat else _cued(item)

    def read(self, path: Path, settings: Settings) -> ChoiceItems:
        """Checked items, with a warning where a single accuracy would mix two kinds of answers."""
        items = super().read(path, settings)
        if len({form_of(item) for item in items.items}) == 1:
            return items
        mixed = "The accuracy of the whole mixes chosen and written answers; its parts stand by domain."
        return replace(items, warnings=(*items.warnings, mixed))

    def _found(self, path: Path) -> list[tuple[Path, str]]:
        files = [(file, self._family(file)) for file in find_files(path, ENDINGS)]
        if path.is_file():
            return files
        known = [(file, family) for file, family in files if family]
        if not known:
            names = ", ".join(f"{name}_mcq.jsonl" for name in self.files)
            raise DataError(
                f"{path} has no file of the suite {self.name} (found {', '.join(file.name for file, _ in files[:8])}). "
                f"Expected some of {names}, or the same with _gen. Name a file, or write some with `sibol evaluate generate`."
            )
        return known

    def _family(self, file: Path) -> str:
        stem = file.name.split(".")[0]
        return next((name for name in self.files if stem in (name, f"{name}_mcq", f"{name}_gen")), "")


def form_of(item: Item) -> str:
    """mcq or gen."""
    return "mcq" if isinstance(item, ChoiceItem) else "gen"


def make_item(
    record: Record, prompt: str, language: str, category: str, gold: str, options: tuple[str, ...] | None, **more: Any
) -> ChoiceItem | GenerativeItem:
    """Multiple choice with options, else a free answer: `gold`, those that the line accepts too, and affixes without their hyphens.

    Free answers have categories of their own. `more`: further fields of the items; one that a form has not is left out there.
    """
    common: dict[str, Any] = {"id": record.id, "prompt": prompt, "language": language, "where": record.place}
    exact_case, question = more.pop("exact_case", False), more.pop("question", None)
    if options is not None:
        more["question"] = question
        return ChoiceItem(**common, category=category, options=tuple(map(str.strip, options)), gold=gold.strip(), **more)
    answers = dict.fromkeys(answer.strip() for answer in (gold, *(record.texts("accepted") if "accepted" in record.fields else ())))
    answers |= dict.fromkeys(answer.strip("-") for answer in answers if answer.strip("-"))
    return GenerativeItem(**common, category=f"{category}{WRITTEN}", answers=tuple(answers), exact_case=exact_case, **more)


def answer_of(record: Record, name: str) -> str:
    """The field `name`, text or a number."""
    value = record.fields.get(name)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else record.text(name)


def nested(record: Record, value: Any, name: str) -> Record:
    """An object inside a line. Raises DataError for anything else."""
    if not isinstance(value, Mapping):
        raise DataError(f"{record.place} has {type(value).__name__} in {name}, expected a JSON object. Mend or remove the line.")
    return Record(record.place, record.name, dict(value))


def _cued(item: GenerativeItem) -> GenerativeItem:
    cue = CUES[item.language]
    return item if item.prompt.rstrip().endswith((cue, "=")) else replace(item, prompt=f"{item.prompt.rstrip()}\n{cue}")


def question_item(record: Record, family: str) -> Item:
    """An item of `question`, `answer` and `options`."""
    question = record.text("question")
    language = next((code for code, cue in CUES.items() if question.rstrip().endswith(cue)), "en")
    subcategory = record.text("subcategory").replace("_", " ") if "subcategory" in record.fields else family.replace("_", " ")
    return make_item(
        record,
        question,
        language,
        subcategory,
        answer_of(record, "answer"),
        record.texts("options") if "options" in record.fields else None,
        question=question.rstrip().removesuffix(CUES[language]).rstrip(),
    )
