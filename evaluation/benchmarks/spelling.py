"""Questions about the characters of words: PACUTE's composition and manipulation.

The wrong answers are what the same operation gives for another character, so that nothing in the options alone tells the right one.
Words with ng or a hyphen are left out: Filipino counts ng as one letter, so a question about letters would have two answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from evaluation.benchmarks.questions import Question, Task, drawn

ALPHABET = "abdeghiklmnoprstuwy"  # the characters of native Filipino words
OPTIONS = 4


def countable(words: Iterable[str]) -> list[str]:
    """The words that everybody counts the same letters in."""
    return sorted({word for word in words if "ng" not in word and word.isalpha() and len(word) > 2})


def composition(words: Sequence[str]) -> dict[str, Task]:
    """The tasks of composition by subcategory."""
    return {
        "spelling": lambda draw: spelling(draw, draw.choice(words)),
        "character_count": lambda draw: character_count(draw, draw.choice(words)),
        "length": lambda draw: length(draw, draw.choice(words)),
        "character_most": lambda draw: extreme_count(draw, words, most=True),
        "character_least": lambda draw: extreme_count(draw, words, most=False),
        "length_longest": lambda draw: extreme_length(draw, words, longest=True),
        "length_shortest": lambda draw: extreme_length(draw, words, longest=False),
        "character_finding": lambda draw: character_finding(draw, words),
    }


def manipulation(words: Sequence[str]) -> dict[str, Task]:
    """The tasks of manipulation by subcategory."""

    def task(make: Callable[[Random, str], Question | None]) -> Task:
        return lambda draw: make(draw, draw.choice(words))

    makers = (insertion, deletion, substitution, permutation, duplication, uppercasing)
    return {make.__name__: task(make) for make in makers}


def spelling(draw: Random, word: str) -> Question | None:
    """takbo: t a k b o."""
    question = Question(
        f'Spell out the word "{word}" by placing a space between its characters.',
        f'Baybayin ang salitang "{word}" sa pamamagitan ng paglalagay ng espasyo sa pagitan ng mga titik.',
        " ".join(word),
        word=word,
    )
    return drawn(draw, question, (" ".join(form) for form in misspelled(draw, word)))


def misspelled(draw: Random, word: str) -> list[str]:
    """The word with one character replaced, with two others exchanged, and with both: none of the four is nearest to the rest."""
    exchanged = draw.randrange(len(word) - 1)
    replaced = draw.choice([place for place in range(len(word)) if place not in (exchanged, exchanged + 1)])
    other = draw.choice([letter for letter in ALPHABET if letter not in word])

    def spelled(replace: bool, exchange: bool) -> str:
        characters = list(word)
        if replace:
            characters[replaced] = other
        if exchange:
            characters[exchanged : exchanged + 2] = reversed(characters[exchanged : exchanged + 2])
        return "".join(characters)

    return [spelled(True, False), spelled(False, True), spelled(True, True)]


def character_count(draw: Random, word: str) -> Question | None:
    """How often a character stands in a word."""
    count = draw.randint(1, 3)  # as often each: most letters of most words stand there once
    having = sorted({letter for letter in word if word.count(letter) == count})
    if not having:
        return None
    letter = draw.choice(having)
    return Question(
        f'How many times does the character "{letter}" occur in the word "{word}"?',
        f'Ilang beses lumilitaw ang titik na "{letter}" sa salitang "{word}"?',
        str(count),
        _near(draw, count),
        word=word,
    )


def length(draw: Random, word: str) -> Question | None:
    """How many characters a word has."""
    return Question(
        f'How many characters are there in the word "{word}"?',
        f'Ilan ang titik sa salitang "{word}"?',
        str(len(word)),
        _near(draw, len(word)),
        word=word,
    )


def _near(draw: Random, number: int) -> tuple[str, ...]:
    """Three other numbers, so that the right one is as often the least as the greatest of the four."""
    low = draw.randint(max(0, number - OPTIONS + 1), number)
    return tuple(str(other) for other in range(low, low + OPTIONS) if other != number)


def extreme_count(draw: Random, words: Sequence[str], most: bool) -> Question | None:
    """Which of four words has the most, or the fewest, of a character; no two are first."""
    letter = draw.choice("aiounkgstlmb")
    options = draw.sample(words, OPTIONS)
    counts = sorted(((word.count(letter), word) for word in options), reverse=most)
    if counts[0][0] == counts[1][0] or not any(count for count, _ in counts):
        return None
    named, tagalog = ("most", "pinakamaraming") if most else ("fewest", "pinakakaunting")
    return Question(
        f'Which word has the {named} occurrences of the character "{letter}": {_listed(options)}?',
        f'Aling salita ang may {tagalog} titik na "{letter}": {_listed(options)}?',
        counts[0][1],
        tuple(word for _, word in counts[1:]),
        free=False,
    )


def extreme_length(draw: Random, words: Sequence[str], longest: bool) -> Question | None:
    """Which of four words is the longest, or the shortest; no two are first."""
    options = sorted(draw.sample(words, OPTIONS), key=len, reverse=longest)
    if len(options[0]) == len(options[1]):
        return None
    named, tagalog = ("longest", "pinakamahaba") if longest else ("shortest", "pinakamaikli")
    return Question(
        f"Which word is the {named}: {_listed(options)}?",
        f"Aling salita ang {tagalog}: {_listed(options)}?",
        options[0],
        tuple(options[1:]),
        free=False,
    )


def character_finding(draw: Random, words: Sequence[str]) -> Question | None:
    """Which of four words has a character."""
    letter = draw.choice(ALPHABET)
    options = draw.sample(words, OPTIONS)
    having = [word for word in options if letter in word]
    if len(having) != 1:
        return None
    return Question(
        f'Which word has the character "{letter}": {_listed(options)}?',
        f'Aling salita ang may titik na "{letter}": {_listed(options)}?',
        having[0],
        tuple(word for word in options if word not in having),
        free=False,
    )


def _listed(options: Sequence[str]) -> str:
    return ", ".join(sorted(options))


def insertion(draw: Random, word: str) -> Question | None:
    """A character after every occurrence of another."""
    new = draw.choice(ALPHABET)
    english = f'Put the character "{new}" after every character "{{0}}" in the word "{word}".'
    filipino = f'Maglagay ng titik na "{new}" pagkatapos ng bawat titik na "{{0}}" sa salitang "{word}".'
    return _each(draw, word, lambda letter: letter + new, english, filipino)


def deletion(draw: Random, word: str) -> Question | None:
    """Every occurrence of a character taken out."""
    english, filipino = (
        f'Delete every character "{{0}}" from the word "{word}".',
        f'Tanggalin ang bawat titik na "{{0}}" sa salitang "{word}".',
    )
    return _each(draw, word, lambda letter: "", english, filipino)


def substitution(draw: Random, word: str) -> Question | None:
    """Every occurrence of a character replaced by another."""
    new = draw.choice([letter for letter in ALPHABET if letter not in word])
    english = f'Replace every character "{{0}}" with "{new}" in the word "{word}".'
    filipino = f'Palitan ng "{new}" ang bawat titik na "{{0}}" sa salitang "{word}".'
    return _each(draw, word, lambda letter: new, english, filipino)


def duplication(draw: Random, word: str) -> Question | None:
    """Every occurrence of a character written twice."""
    english = f'Duplicate every character "{{0}}" in the word "{word}".'
    filipino = f'Ulitin nang isang beses ang bawat titik na "{{0}}" sa salitang "{word}".'
    return _each(draw, word, lambda letter: letter * 2, english, filipino)


def uppercasing(draw: Random, word: str) -> Question | None:
    """Every occurrence of a character in upper case."""
    english = f'Write every character "{{0}}" in the word "{word}" in upper case.'
    filipino = f'Gawing malaking titik ang bawat "{{0}}" sa salitang "{word}".'
    return _each(draw, word, str.upper, english, filipino)


def _each(draw: Random, word: str, change: Callable[[str], str], english: str, filipino: str) -> Question | None:
    """The change of every occurrence of a character; the wrong answers are that of another character."""
    present = sorted(set(word))
    old = draw.choice(present)
    changed = {letter: word.replace(letter, change(letter)) for letter in present}
    question = Question(english.format(old), filipino.format(old), changed[old], word=word)
    return drawn(draw, question, changed.values(), never=[word])


def permutation(draw: Random, word: str) -> Question | None:
    """Every occurrence of two characters exchanged."""
    present = sorted(set(word))
    if len(present) < OPTIONS:
        return None
    one, other = draw.sample(present, 2)

    def swapped(first: str, second: str) -> str:
        return word.translate(str.maketrans(first + second, second + first))

    pairs = [(first, second) for first in present for second in present if first < second]
    question = Question(
        f'Swap every "{one}" with "{other}" and every "{other}" with "{one}" in the word "{word}".',
        f'Pagpalitin ang bawat "{one}" at bawat "{other}" sa salitang "{word}".',
        swapped(one, other),
        word=word,
    )
    return drawn(draw, question, (swapped(*pair) for pair in pairs), never=[word])
