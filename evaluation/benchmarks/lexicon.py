"""The words a benchmark is made of: roots with their affixes from `filipino.yaml`, inflected, and common English words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from evaluation.benchmarks.inflection import Affix, inflect, parse_affix, spelled, surface_notation

FOLDER = Path(__file__).parent
FILIPINO, ENGLISH = FOLDER / "filipino.yaml", FOLDER / "english.yaml"


@dataclass(frozen=True)
class Word:
    """A root with one affix. `forms`: every accepted spelling, the usual one first; `regular`: they follow from the rules."""

    marked_root: str
    notation: str
    forms: tuple[str, ...]
    regular: bool

    @property
    def root(self) -> str:
        """The root as it is written."""
        return spelled(self.marked_root)

    @property
    def form(self) -> str:
        """The usual form."""
        return self.forms[0]

    @property
    def affix(self) -> Affix:
        """The parts of the affix."""
        return parse_affix(self.notation)

    @cached_property
    def name(self) -> str:
        """The affix as prompts call it: as it shows in the form where that follows the rules, "-hin" and "um-"."""
        return surface_notation(self.marked_root, self.affix) if self.regular else self.notation.removesuffix("R")


@dataclass(frozen=True)
class Meaning:
    """One reading of a homograph: its stressed syllable, from 1, and what it means."""

    word: str
    stressed: int
    english: str
    filipino: str


class Lexicon:
    """All words, with the questions that a generator asks to be sure that an answer is the only right one."""

    def __init__(self, roots: Mapping[str, str], homographs: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        self.words = tuple(_word(root, entry) for root, entries in roots.items() for entry in entries.split())
        self.roots = tuple(dict.fromkeys(map(spelled, roots)))
        self.meanings = tuple(Meaning(word, *reading) for word, readings in homographs.items() for reading in readings)
        self.by_root: dict[str, list[Word]] = defaultdict(list)
        self._of_form: dict[str, list[Word]] = defaultdict(list)
        for word in self.words:
            self.by_root[word.root].append(word)
            for form in word.forms:
                self._of_form[form].append(word)

    def analyses(self, form: str) -> list[Word]:
        """Every root with an affix that has this form."""
        return self._of_form.get(form, [])

    @cached_property
    def plain(self) -> tuple[Word, ...]:
        """Words without reduplication that have one analysis and are no root themselves: one root, one affix, no doubt."""
        return tuple(word for word in self.words if not word.affix.repeats and self._clear(word))

    @cached_property
    def repeated(self) -> tuple[Word, ...]:
        """Regular words with reduplication that have one analysis."""
        return tuple(word for word in self.words if word.affix.repeats and word.regular and self._clear(word))

    @cached_property
    def affixes(self) -> dict[str, Affix]:
        """Every affix by the name that prompts call it."""
        return {word.name: word.affix for word in self.plain}

    def accepted(self, root: str, name: str) -> set[str]:
        """Every form of a root, as it is written, with an affix as prompts call it."""
        return {form for word in self.by_root[root] if word.name == name and not word.affix.repeats for form in word.forms}

    def _clear(self, word: Word) -> bool:
        return all(len(self.analyses(form)) == 1 and form not in self.roots for form in word.forms)


def _word(marked_root: str, entry: str) -> Word:
    notation, _, listed = entry.partition("=")
    if listed:
        return Word(marked_root, notation, tuple(listed.split("/")), regular=False)
    return Word(marked_root, notation, inflect(marked_root, parse_affix(notation)), regular=True)


@cache
def filipino() -> Lexicon:
    """The table of this project."""
    table = yaml.safe_load(FILIPINO.read_text(encoding="utf-8"))
    return Lexicon(table["roots"], table["homographs"])


@cache
def english_words() -> tuple[str, ...]:
    """Common English words in lower case."""
    words: list[str] = yaml.safe_load(ENGLISH.read_text(encoding="utf-8"))["words"].split()
    return tuple(dict.fromkeys(words))
