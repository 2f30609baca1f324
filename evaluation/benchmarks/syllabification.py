"""Questions about syllables: PACUTE's syllabification, with the stress of words whose meaning depends on it."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from evaluation.benchmarks.lexicon import Lexicon, Meaning
from evaluation.benchmarks.questions import Question, Task, drawn
from evaluation.benchmarks.syllables import syllables


def syllabification(lexicon: Lexicon) -> dict[str, Task]:
    """Counting, dividing and naming syllables of roots and forms; stress by meaning."""
    words = sorted({*lexicon.roots, *(word.form for word in lexicon.plain)})
    return {
        "syllable_count": lambda draw: syllable_count(draw, draw.choice(words)),
        "syllable_division": lambda draw: syllable_division(draw, draw.choice(words)),
        "syllable_identification": lambda draw: syllable_identification(draw, draw.choice(words)),
        "stress_identification": lambda draw: stress_identification(draw.choice(lexicon.meanings)),
    }


def syllable_count(draw: Random, word: str) -> Question | None:
    """How many syllables a word has."""
    count = len(syllables(word))
    low = draw.randint(max(1, count - 3), count)
    wrong = tuple(str(number) for number in range(low, low + 4) if number != count)
    return Question(
        f'How many syllables are there in the word "{word}"?', f'Ilan ang pantig sa salitang "{word}"?', str(count), wrong, word=word
    )


def syllable_division(draw: Random, word: str) -> Question | None:
    """A word with hyphens between its syllables; the wrong answers have one boundary, another one, or both moved by a letter."""
    parts = syllables(word)
    if len(parts) < 3 or "-" in word:
        return None
    cuts = [sum(map(len, parts[:number])) for number in range(1, len(parts))]
    (one, one_step), (other, other_step) = ((place, draw.choice((-1, 1))) for place in draw.sample(range(len(cuts)), 2))

    def divided(*moves: tuple[int, int]) -> str:
        moved = list(cuts)
        for place, step in moves:
            moved[place] += step
        return "-".join(word[start:end] for start, end in pairwise([0, *moved, len(word)]))

    question = Question(
        f'Divide the word "{word}" into syllables, with hyphens between them.',
        f'Pantigin ang salitang "{word}" gamit ang gitling sa pagitan ng mga pantig.',
        divided(),
        word=word,
    )
    wrong = [divided((one, one_step)), divided((other, other_step)), divided((one, one_step), (other, other_step))]
    return drawn(draw, question, [option for option in wrong if "--" not in option and option.strip("-") == option])


def syllable_identification(draw: Random, word: str) -> Question | None:
    """The first, second, ... syllable of a word of at least four."""
    parts = syllables(word)
    number = draw.randint(1, len(parts))
    ordinal = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}.get(number)
    if ordinal is None:
        return None
    question = Question(
        f'What is the {ordinal} syllable of the word "{word}"?',
        f'Ano ang ika-{number} pantig ng salitang "{word}"?',
        parts[number - 1],
        word=word,
    )
    return drawn(draw, question, parts)


def stress_identification(meaning: Meaning) -> Question | None:
    """Which of two syllables is stressed, for one meaning of a homograph."""
    parts = syllables(meaning.word)
    answer = parts[meaning.stressed - 1]
    return Question(
        f'Which syllable of the word "{meaning.word}" is stressed when it means "{meaning.english}"?',
        f'Aling pantig ng salitang "{meaning.word}" ang may diin kung ang kahulugan nito ay "{meaning.filipino}"?',
        answer,
        tuple(part for part in parts if part != answer),
        word=meaning.word,
    )
