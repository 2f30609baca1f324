"""LangGame and multi-digit addition, after StochasTok (Sims et al. 2025, arXiv:2506.01687).

LangGame asks which of four words has the most of a letter, contains, starts or ends with a string, is the longest or the shortest; only
one word qualifies, and the margin is what it is there: at least two letters against at most one, at least 7 characters against at most
4, at most 3 against at least 6. Every place in the list is as often the right one. An addition has a first number of three digits and
a second of up to three, its answer in usual order, and the wrong sums have as many digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from evaluation.benchmarks.questions import Question, Task, ask, balanced_places, drawn, ordered

LONG, SHORT, LONG_OTHERS, SHORT_OTHERS = 7, 3, 4, 6  # characters: StochasTok's margins
LONGEST_STRING = 3
OPTIONS = 4
SENTENCES = {
    "en": "Which of these words {0}? The words are: {1}. Answer:",
    "tl": "Alin sa mga salitang ito ang {0}? Ang mga salita ay: {1}. Sagot:",
}


def langgame(words: Sequence[str]) -> dict[str, Task]:
    """The six games by subcategory."""
    return {
        "most_letter": lambda draw: most_letter(draw, words),
        "contains": lambda draw: _with_string(draw, words, "contains", "nagtataglay ng", lambda word, part: part in word),
        "starts_with": lambda draw: _with_string(draw, words, "starts with", "nagsisimula sa", str.startswith),
        "ends_with": lambda draw: _with_string(draw, words, "ends with", "nagtatapos sa", str.endswith),
        "longest": lambda draw: _by_length(draw, words, "is the longest", "pinakamahaba", LONG, 99, 1, LONG_OTHERS),
        "shortest": lambda draw: _by_length(draw, words, "is the shortest", "pinakamaikli", 1, SHORT, SHORT_OTHERS, 99),
    }


def most_letter(draw: Random, words: Sequence[str]) -> Question | None:
    """A word with a letter twice among words that have it once at most."""
    gold = draw.choice(words)
    letters = sorted({letter for letter in gold if gold.count(letter) > 1})
    if not letters:
        return None
    letter = draw.choice(letters)
    question = Question(f'has the most letters "{letter}"', f'may pinakamaraming titik na "{letter}"', gold)
    return drawn(draw, question, draw.sample([word for word in words if word.count(letter) < 2], 12))


def _with_string(draw: Random, words: Sequence[str], english: str, filipino: str, has: Callable[[str, str], bool]) -> Question | None:
    gold = draw.choice(words)
    length = draw.randint(1, min(LONGEST_STRING, len(gold)))
    start = draw.randrange(len(gold) - length + 1)
    part = {"starts with": gold[:length], "ends with": gold[-length:]}.get(english, gold[start : start + length])
    others = [word for word in words if not has(word, part)]
    return drawn(draw, Question(f'{english} "{part}"', f'{filipino} "{part}"', gold), draw.sample(others, 12))


def _by_length(
    draw: Random, words: Sequence[str], english: str, filipino: str, least: int, most: int, others_least: int, others_most: int
) -> Question | None:
    golds = [word for word in words if least <= len(word) <= most]
    others = [word for word in words if others_least <= len(word) <= others_most]
    return drawn(draw, Question(english, filipino, draw.choice(golds)), draw.sample(others, 12))


def langgame_rows(task: Task, subcategory: str, language: str, count: int, seed: int, choice: bool) -> list[dict[str, Any]]:
    """Rows of one game, without ids; the words stand in the question, the right one in every place equally often."""
    name = f"langgame_{subcategory}"
    questions = ask(task, count, seed, name, key=lambda question: (question.english, *sorted((question.answer, *question.wrong))))
    draw = Random(f"{seed}:{name}:order")
    rows = []
    for question, place in zip(questions, balanced_places(len(questions), OPTIONS, draw), strict=True):
        options = ordered(question, place, draw)
        condition = question.english if language == "en" else question.filipino
        sentence = SENTENCES[language].format(condition, ", ".join(options))
        rows.append(_row(sentence, question.answer, subcategory, options if choice else None))
    return rows


def addition_rows(count: int, seed: int, choice: bool) -> list[dict[str, Any]]:
    """Rows of additions, without ids; options in random order, the right one in every place equally often."""
    questions = ask(addition, count, seed, "addition")
    draw = Random(f"{seed}:addition:order")
    places = balanced_places(len(questions), OPTIONS, draw)
    return [
        _row(question.english, question.answer, "addition", ordered(question, place, draw) if choice else None)
        for question, place in zip(questions, places, strict=True)
    ]


def _row(question: str, answer: str, subcategory: str, options: Sequence[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"question": question, "answer": answer, "subcategory": subcategory}
    return row | ({"options": list(options)} if options else {})


def addition(draw: Random) -> Question | None:
    """A sum; the wrong ones are off in the last digit, in another one, and in both, so that none of the four is nearest to the rest."""
    first, second = draw.randint(100, 999), draw.randint(0, 999)
    total = first + second
    last, other = draw.choice((-2, -1, 1, 2)), draw.choice((-100, -20, -10, 10, 20, 100))
    sums = [str(total + error) for error in (last, other, last + other)]
    question = Question(f"{first}+{second}=", f"{first}+{second}=", str(total))
    return drawn(draw, question, [found for found in sums if len(found) == len(str(total))])
