"""The hierarchical benchmark: six levels, from a character to an inflection of an inflection, all about one root.

A chain is a root with two of its affixes. Level 0 asks for a character of the first form, 1 changes one, 2 asks for the affix, 3 for the
root, 4 for the form, and 5 for the second form given the first. So that "level 3 is answered where 0 to 2 are" means something, every
chain has one question on each level; `metadata.chain` tells which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from evaluation.benchmarks.inflection import inflect
from evaluation.benchmarks.lexicon import Lexicon, Word
from evaluation.benchmarks.morphology import (
    ERRORS,
    KINDS,
    affix_extraction,
    inflection_question,
    misformed,
    rival_affix,
    rival_form,
    root_extraction,
    shown_kind,
)
from evaluation.benchmarks.questions import TRIES_PER_ITEM, Question, drawn
from evaluation.benchmarks.spelling import ALPHABET, countable

LEVELS = ("recognition", "manipulation", "affix_identification", "affix_removal", "affix_addition", "reinflection")


@dataclass(frozen=True)
class Chain:
    """A root's form with one affix, and its form with another."""

    first: Word
    second: Word


def chains(lexicon: Lexicon, count: int, seed: int) -> list[tuple[tuple[str, Question], ...]]:
    """Up to `count` chains of six (subcategory, question), about as many roots as there are before a root comes twice."""
    draw = Random(f"{seed}:hierarchical")
    usable: dict[str, list[Word]] = {}
    for word in lexicon.plain:
        if countable([word.form]) and len(word.form) > len(word.root):
            usable.setdefault(word.root, []).append(word)
    roots = [root for root, words in usable.items() if len(words) > 1]
    found: list[tuple[tuple[str, Question], ...]] = []
    asked: set[tuple[str, str]] = set()
    for _ in range(TRIES_PER_ITEM * -(-count // max(1, len(roots)))):
        draw.shuffle(roots)
        for root in roots:
            if len(found) == count:
                return found
            chain = Chain(*draw.sample(usable[root], 2))
            questions = None if (chain.first.form, root) in asked else _questions(draw, lexicon, chain, len(found))
            if questions:
                asked.add((chain.first.form, root))
                found.append(questions)
    return found


def _questions(draw: Random, lexicon: Lexicon, chain: Chain, number: int) -> tuple[tuple[str, Question], ...] | None:
    """The questions of all levels, or None when one of them cannot be asked."""
    word = chain.first
    made: list[tuple[str, Question | None]] = [
        recognition(draw, word.form),
        change(draw, word.form),
        ("affix", affix_extraction(draw, lexicon, word)),
        ("root", root_extraction(draw, lexicon, word)),
        (shown_kind(word), inflection_question(draw, lexicon, word)),
        (shown_kind(chain.second), reinflection(draw, lexicon, chain)),
    ]
    notes = {"chain": number, "root": word.root, "affix": word.name}
    done = [(name, replace(question, word=word.form, notes=question.notes | notes)) for name, question in made if question]
    return tuple(done) if len(done) == len(LEVELS) else None


def reinflection(draw: Random, lexicon: Lexicon, chain: Chain) -> Question | None:
    """Take the affix off a form and put another on."""
    first, second = chain.first, chain.second
    kind = KINDS[shown_kind(second)]
    accepted = lexicon.accepted(second.root, second.name)
    question = Question(
        f'Find the root of the word "{first.form}" and inflect it using the {kind[0]} "{second.name}".',
        f'Hanapin ang salitang-ugat ng "{first.form}" at lapian ito ng {kind[1]} "{second.name}".',
        second.form,
        accepted=tuple(sorted(accepted - {second.form})),
        notes={"new_affix": second.name},
    )
    rival = rival_affix(draw, lexicon, second)
    if draw.random() < 0.5:
        errors = [inflect(first.form, affix)[0] for affix in (second.affix, rival)]  # put on what is there already
    else:
        error = draw.choice(ERRORS)
        errors = [misformed(second.root, affix)[error] for affix in (second.affix, rival)]
    return drawn(draw, question, [rival_form(lexicon, second, rival), *errors], never=second.forms)


def recognition(draw: Random, form: str) -> tuple[str, Question | None]:
    """A character at a place counted from the start or the end."""
    place = draw.randrange(len(form))
    if draw.random() < 0.5:
        question = Question(
            f'What is character number {place + 1} of the word "{form}"?',
            f'Ano ang ika-{place + 1} titik ng salitang "{form}"?',
            form[place],
        )
        return "character_identification", drawn(draw, question, form)
    question = Question(
        f'What is character number {place + 1} of the word "{form}", counted from the end?',
        f'Ano ang ika-{place + 1} titik ng salitang "{form}" mula sa dulo?',
        form[-place - 1],
    )
    return "character_identification_from_end", drawn(draw, question, form)


def change(draw: Random, form: str) -> tuple[str, Question | None]:
    """A change at one place of a form; the wrong answers are the same change elsewhere."""
    name = draw.choice(sorted(CHANGES))
    changed, english, filipino = CHANGES[name]
    new = draw.choice([letter for letter in ALPHABET if letter not in form])
    place = draw.randrange(len(form) - 1)
    question = Question(
        f'{english.format(place + 1, new)} the word "{form}".',
        f'{filipino.format(place + 1, new)} salitang "{form}".',
        changed(form, place, new),
    )
    if question.answer == form:
        return name, None
    return name, drawn(draw, question, (changed(form, other, new) for other in range(len(form) - 1)), never=[form])


Change = Callable[[str, int, str], str]  # form, place from 0, a character that it has not -> changed form
CHANGES: dict[str, tuple[Change, str, str]] = {
    "deletion": (
        lambda form, place, new: form[:place] + form[place + 1 :],
        "Delete character number {0} of",
        "Tanggalin ang ika-{0} titik ng",
    ),
    "insertion": (
        lambda form, place, new: form[: place + 1] + new + form[place + 1 :],
        'Put the character "{1}" after character number {0} of',
        'Maglagay ng "{1}" pagkatapos ng ika-{0} titik ng',
    ),
    "substitution": (
        lambda form, place, new: form[:place] + new + form[place + 1 :],
        'Replace character number {0} with "{1}" in',
        'Palitan ng "{1}" ang ika-{0} titik ng',
    ),
    "swap": (
        lambda form, place, new: form[:place] + form[place + 1] + form[place] + form[place + 2 :],
        "Swap character number {0} with the one after it in",
        "Pagpalitin ang ika-{0} titik at ang kasunod nito sa",
    ),
}
