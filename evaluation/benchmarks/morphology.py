"""Questions about Filipino inflection: PACUTE's affixation, extraction and production.

A wrong answer is never right by another reading: forms with two analyses are left out, and a form that could be taken to show an
affix is not offered as one without it. To inflect, the options are the right form, that of another affix of its kind, and both with
the same error, so that nothing in the options alone tells the right one; roots are chosen from two and both cut in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise
from random import Random

from evaluation.benchmarks.inflection import NASAL_PREFIXES, Affix, inflect, parse_affix
from evaluation.benchmarks.lexicon import Lexicon, Word
from evaluation.benchmarks.questions import Question, Task, drawn
from evaluation.benchmarks.syllables import VOWELS, reduplicant, syllables

KINDS = {
    "prefix": ("prefix", "unlaping"),
    "infix": ("infix", "gitlaping"),
    "suffix": ("suffix", "hulaping"),
    "circumfix": ("circumfix", "kabilaang panlaping"),
    "infix_suffix": ("infix and suffix", "panlaping"),
}
ERRORS = ("end", "inside")


def affixation(lexicon: Lexicon) -> dict[str, Task]:
    """Choosing the form with an affix, and inflection that only puts the parts side by side, by kind of affix."""
    tasks: dict[str, Task] = {"affix_identification": lambda draw: affix_identification(draw, lexicon, draw.choice(lexicon.plain))}
    for kind in ("prefix", "infix", "suffix", "circumfix"):
        words = [word for word in lexicon.plain if shown_kind(word) == kind and side_by_side(word)]
        tasks[kind] = _inflection(lexicon, words)
    return tasks


def extraction(lexicon: Lexicon) -> dict[str, Task]:
    """Affix, root, repeated syllable and root of a given form."""
    plain = [word for word in lexicon.plain if len(word.form) > len(word.root)]
    return {
        "inflected_affix_extraction": lambda draw: affix_extraction(draw, lexicon, draw.choice(plain)),
        "inflected_root_extraction": lambda draw: root_extraction(draw, lexicon, draw.choice(plain)),
        "reduplicated_root_extraction": lambda draw: root_extraction(draw, lexicon, draw.choice(lexicon.repeated)),
        "reduplicant_extraction": lambda draw: reduplicant_extraction(
            draw,
            draw.choice(lexicon.repeated if draw.random() < 0.75 else lexicon.plain),  # "none" is one of four options
        ),
    }


def production(lexicon: Lexicon) -> dict[str, Task]:
    """Inflection with changes of sound, regular and lexical."""
    words = [word for word in lexicon.plain if not side_by_side(word)]
    return {"inflected_form_production": _inflection(lexicon, words)}


def shown_kind(word: Word) -> str:
    """The kind of the affix as the prompt names it: -um- before a vowel is a prefix."""
    return parse_affix(word.name).kind


def side_by_side(word: Word) -> bool:
    """Whether the form is the parts of the affix put on, into and behind the root as it is."""
    return word.regular and word.form in _put_together(word.root, word.name)


def _put_together(root: str, name: str) -> set[str]:
    affix = parse_affix(name)
    stem = root[0] + affix.infix + root[1:] if affix.infix else root
    return {affix.prefix + joint + stem + affix.suffix for joint in ("", "-")}


def shows(form: str, affix: Affix) -> bool:
    """Whether somebody could take a form to have an affix."""
    prefix = affix.prefix.removesuffix("ng") if affix.prefix in NASAL_PREFIXES else affix.prefix
    return form.startswith(prefix) and affix.infix in form and form.endswith(affix.suffix)


def spellings(word: Word) -> set[str]:
    """Ways to write the affix of a word: -in and -hin, um- and -um-, ka-+-an and ka- -an."""
    names = {word.name, word.notation.removesuffix("R")}
    if word.affix.infix == "in" and not word.affix.suffix and word.form.startswith("ni"):
        names.add("ni-")
    return names | {name.replace("+", joint) for name in names if "+" in name for joint in (" ", "...", " at ", " and ", ", ")}


def affix_identification(draw: Random, lexicon: Lexicon, word: Word) -> Question | None:
    """Which of the forms of a root has the affix?"""
    kind = KINDS[shown_kind(word)]
    question = Question(
        f'Which option has the {kind[0]} "{word.name}"?', f'Alin ang may {kind[1]} "{word.name}"?', word.form, free=False, word=word.root
    )
    others = [other.form for other in lexicon.by_root[word.root] if not shows(other.form, word.affix)]
    roots = [word.root] if not shows(word.root, word.affix) else []
    found = drawn(draw, question, [*others, *roots], never=word.forms)
    if found is None:
        return None
    options = ", ".join(sorted((found.answer, *found.wrong)))  # the prompt alone would not tell one question from another
    return replace(
        found,
        english=f'Which of these words has the {kind[0]} "{word.name}": {options}?',
        filipino=f'Alin sa mga salitang ito ang may {kind[1]} "{word.name}": {options}?',
    )


def _inflection(lexicon: Lexicon, words: Sequence[Word]) -> Task:
    return lambda draw: inflection_question(draw, lexicon, draw.choice(words))


def inflection_question(draw: Random, lexicon: Lexicon, word: Word) -> Question | None:
    """The form of a root with an affix."""
    kind = KINDS[shown_kind(word)]
    accepted = lexicon.accepted(word.root, word.name)
    question = Question(
        f'Inflect the word "{word.root}" using the {kind[0]} "{word.name}".',
        f'Lapian ng {kind[1]} "{word.name}" ang salitang "{word.root}".',
        word.form,
        accepted=_others(word.form, accepted),
        word=word.root,
        notes={"root": word.root, "affix": word.name},
    )
    rival = rival_affix(draw, lexicon, word)
    errors, others = misformed(word.root, word.affix), misformed(word.root, rival)
    error = draw.choice(ERRORS)
    form = rival_form(lexicon, word, rival)
    return drawn(draw, question, [form, errors[error], others[error]], never=[*word.forms, word.root])


def rival_affix(draw: Random, lexicon: Lexicon, word: Word) -> Affix:
    """Another affix of the same kind: one that the root is used with, or as likely as it is among all words."""
    kind = shown_kind(word)
    if word.affix.kind == "infix_suffix":
        return replace(word.affix, infix="um")
    own = [other.affix for other in lexicon.by_root[word.root] if not other.affix.repeats and shown_kind(other) == kind]
    usual = [other.affix for other in lexicon.plain if shown_kind(other) == kind]
    own, usual = ([affix for affix in affixes if affix != word.affix] for affixes in (own, usual))
    return draw.choice(own or usual)


def rival_form(lexicon: Lexicon, word: Word, affix: Affix) -> str:
    """The form with another affix, as it is listed or by rule."""
    listed = [other.form for other in lexicon.by_root[word.root] if other.affix == affix]
    return listed[0] if listed else inflect(word.marked_root, affix)[0]


def misformed(root: str, affix: Affix) -> dict[str, str]:
    """Forms that break a rule, as long as the right ones: the affix at the wrong end, or in the root where it is no infix."""
    prefix, infix, suffix = affix.prefix, affix.infix, affix.suffix
    if infix:
        front = root[0] + infix + root[1:] if root[0] in VOWELS else infix + root
        return {"end": front + suffix, "inside": root[:-1] + infix + root[-1] + suffix}
    if prefix and suffix:
        return {"end": root + prefix + suffix, "inside": root[0] + prefix + root[1:] + suffix}
    return {"end": root + prefix if prefix else suffix + root, "inside": root[0] + prefix + suffix + root[1:]}


def affix_extraction(draw: Random, lexicon: Lexicon, word: Word) -> Question | None:
    """The affix of a form."""
    accepted = spellings(word)
    question = Question(
        f'What is the affix used to inflect the word "{word.form}"?',
        f'Ano ang panlaping ginamit sa salitang "{word.form}"?',
        word.name,
        accepted=_others(word.name, accepted),
        word=word.root,
        notes={"root": word.root, "affix": word.name},
    )
    inside = [name for name in lexicon.affixes if name.strip("-") in word.name]  # ka- is a part of maka-: half right
    names = sorted(name for name, affix in lexicon.affixes.items() if not shows(word.form, affix) and name not in inside)
    # letters of the form that are no affix there come first, or the only option with letters of the form would be the right one
    seen = [name for name in names if all(part.strip("-") in word.form for part in name.split("+"))]
    near = [name for name in names if parse_affix(name).kind == shown_kind(word) and name not in seen]
    return drawn(draw, question, [*seen, *draw.sample(near, min(2, len(near)))] if seen else names, never=accepted)


def root_extraction(draw: Random, lexicon: Lexicon, word: Word) -> Question | None:
    """The root of a form."""
    question = Question(
        f'What is the root of the word "{word.form}"?',
        f'Ano ang salitang-ugat ng "{word.form}"?',
        word.root,
        word=word.root,
        notes={"root": word.root, "affix": word.name},
    )
    near = [root for root in get_close_matches(word.form, lexicon.roots, n=4, cutoff=0.4) if root != word.root]
    if not near:
        return None
    rival, peel = draw.choice(near), draw.choice(PEELINGS)
    return drawn(
        draw,
        question,
        [rival, peel(word.root, word.affix), peel(rival, word.affix)],
        never=[other for other in lexicon.roots if other != rival],
    )


# What is left when too much or too little is taken off.
PEELINGS: tuple[Callable[[str, Affix], str], ...] = (
    lambda root, affix: root[1:],
    lambda root, affix: root[:-1],
    lambda root, affix: (affix.prefix[-1:] or affix.infix[-1:]) + root + affix.suffix[:1],
)


def reduplicant_extraction(draw: Random, word: Word) -> Question | None:
    """The syllable that was repeated, or none; where a prefix changed its sound (mananakot), people would not agree on it."""
    if word.affix.prefix in NASAL_PREFIXES or (not word.affix.repeats and _has_double(word.form)):
        return None
    question = Question(
        f'Which part of the root is repeated in the word "{word.form}"? Answer "none" if no part is.',
        f'Aling bahagi ng salitang-ugat ang inulit sa salitang "{word.form}"? Isulat ang "none" kung wala.',
        reduplicant(word.root) if word.affix.repeats else "none",
        word=word.root,
        notes={"root": word.root, "affix": word.name},
    )
    return drawn(draw, question, ["none", *syllables(word.form), word.root[:1], word.root[-2:]])


def _has_double(form: str) -> bool:
    parts = syllables(form)
    return any(after.startswith(before) for before, after in pairwise(parts))


def _others(answer: str, accepted: Iterable[str]) -> tuple[str, ...]:
    """The right answers besides the usual one; none of them if it is the only one."""
    return tuple(sorted(set(accepted) - {answer}))
