"""A question with its right answers and answers that are never right, and the rows it becomes in the published files.

Schemas: PACUTE (choices with balanced labels; free answers), the hierarchical benchmark, LangGame and additions as they lie in
github.com/raileymontalan/pacute-bench, data/benchmarks. Our rows have two fields more where they apply: `accepted`, all right
answers where there are several, and `word`, what a question is about.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

LABELS = "ABCD"
WRONG_ANSWERS = 3
TRIES_PER_ITEM = 60  # draws after which a task is taken to have no further questions


@dataclass(frozen=True)
class Question:
    """`wrong` is empty where the answer must be written; `free` is false where it can only be chosen. `accepted`: further right answers."""

    english: str
    filipino: str
    answer: str
    wrong: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    free: bool = True
    word: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = (self.answer, *self.wrong)
        assert len(set(options)) == len(options), f"duplicate options {options} for {self.english!r}"
        assert not set(self.wrong) & set(self.accepted), f"a right answer among the wrong ones of {self.english!r}: {self.wrong}"
        assert all(option.strip() == option != "" for option in options), f"an empty or padded option for {self.english!r}: {options}"

    @property
    def all_accepted(self) -> list[str]:
        """Every right answer, the usual one first."""
        return list(dict.fromkeys((self.answer, *self.accepted)))


Task = Callable[[Random], Question | None]  # None: the draw made no sound question


def prompt_of(question: Question) -> Hashable:
    """What makes a question another one."""
    return question.english


def ask(task: Task, count: int, seed: int, name: str, key: Callable[[Question], Hashable] = prompt_of) -> list[Question]:
    """Up to `count` questions of a task that differ in `key`; the same for the same seed and name."""
    draw = Random(f"{seed}:{name}")
    found: dict[Hashable, Question] = {}
    for _ in range(count * TRIES_PER_ITEM):
        if len(found) == count:
            break
        question = task(draw)
        if question:
            found.setdefault(key(question), question)
    return list(found.values())


def drawn(draw: Random, question: Question, candidates: Iterable[str], never: Iterable[str] = ()) -> Question | None:
    """The question with three wrong answers out of `candidates` that are neither right nor in `never`; None where there are fewer."""
    usable = sorted({candidate for candidate in candidates if candidate} - {*question.all_accepted, *never})
    if len(usable) < WRONG_ANSWERS:
        return None
    return replace(question, wrong=tuple(draw.sample(usable, WRONG_ANSWERS)))


def balanced_places(count: int, options: int, draw: Random) -> list[int]:
    """A place for the right answer of each question: every place equally often, in blocks of random order."""
    places: list[int] = []
    while len(places) < count:
        block = list(range(options))
        draw.shuffle(block)
        places += block
    return places[:count]


def ordered(question: Question, place: int, draw: Random) -> list[str]:
    """The options with the right one at `place`."""
    wrong = list(question.wrong)
    draw.shuffle(wrong)
    return [*wrong[:place], question.answer, *wrong[place:]]


def choice_rows(category: str, subcategory: str, questions: Sequence[Question], draw: Random) -> list[dict[str, Any]]:
    """PACUTE's rows of multiple choice, without ids."""
    chosen = [question for question in questions if question.wrong]
    rows = []
    for question, place in zip(chosen, _places(chosen, draw), strict=True):
        prompt: dict[str, Any] = {"text_en": question.english, "text_tl": question.filipino, "mcq_options": {"correct": question.answer}}
        prompt["mcq_options"] |= {f"incorrect{number}": wrong for number, wrong in enumerate(question.wrong, 1)}
        prompt |= {f"choice{number}": option for number, option in enumerate(ordered(question, place, draw), 1)}
        row = {"category": category, "subcategory": subcategory, "prompts": [prompt], "label": LABELS[place]}
        rows.append(row | _more(question))
    return rows


def free_rows(category: str, subcategory: str, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """PACUTE's rows of free answers, without ids."""
    rows = []
    for question in questions:
        if question.free:
            prompt = {"text_en": question.english, "text_tl": question.filipino}
            row = {"category": category, "subcategory": subcategory, "prompts": [prompt], "label": question.answer}
            rows.append(row | _more(question))
    return rows


def level_rows(
    level: int, category: str, subcategory: str, questions: Sequence[Question], choice: bool, draw: Random
) -> list[dict[str, Any]]:
    """The hierarchical benchmark's rows, without ids; the options are in random order, and the answer is told by its value."""
    places = _places(questions, draw)
    rows = []
    for question, place in zip(questions, places, strict=True):
        row: dict[str, Any] = {"level": level, "category": category, "subcategory": subcategory}
        row |= {"prompt_en": question.english, "prompt_tl": question.filipino}
        row |= {"options": ordered(question, place, draw)} if choice else {}
        rows.append(row | {"answer": question.answer, "word": question.word, "metadata": question.notes} | _more(question))
    return rows


def _places(questions: Sequence[Question], draw: Random) -> list[int]:
    options = {len(question.wrong) + 1 for question in questions}
    assert len(options) <= 1, f"questions of one task with {options} options"
    return balanced_places(len(questions), max(options, default=1), draw)


def _more(question: Question) -> dict[str, Any]:
    """What the published rows do not have."""
    accepted = {"accepted": question.all_accepted} if question.accepted else {}
    return accepted | ({"word": question.word} if question.word else {})
