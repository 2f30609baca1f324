"""Filipino words as sounds: letters with the digraph ng as one, and syllables by the rules of the national orthography.

Source of the rules: Komisyon sa Wikang Filipino, Ortograpiyang Pambansa (2014), "Pagpapantig". Every vowel makes a syllable. One
consonant between vowels begins the second syllable (ba-hay); of two, the first closes the syllable before (tak-bo, sob-re); of
three, the first two do (eks-per-to), unless m, n or ng stands before bl, br, dr, pl or tr (sen-tral, a-sam-ble-a); of four, the
first two (eks-plo-ra-dor). A hyphen is always a boundary (mag-a-ral).
"""

from __future__ import annotations

from itertools import pairwise

VOWELS = frozenset("aeiou")
NASALS = ("m", "n", "ng")
KEPT_TOGETHER = (("b", "l"), ("b", "r"), ("d", "r"), ("p", "l"), ("t", "r"))


def letters(word: str) -> list[str]:
    """The letters of a word in lower case, ng as one."""
    found: list[str] = []
    for character in word:
        if character == "g" and found and found[-1] == "n":
            found[-1] = "ng"
        else:
            found.append(character)
    return found


def is_vowel(letter: str) -> bool:
    """Whether a letter makes a syllable."""
    return letter in VOWELS


def syllables(word: str) -> list[str]:
    """The syllables of a word; joined they are the word without its hyphens."""
    return [syllable for part in word.split("-") for syllable in _of_part(letters(part))]


def _of_part(sounds: list[str]) -> list[str]:
    vowels = [index for index, sound in enumerate(sounds) if is_vowel(sound)]
    if not vowels:
        return ["".join(sounds)] if sounds else []
    cuts = [0]
    for before, after in pairwise(vowels):
        cuts.append(before + 1 + _closing(sounds[before + 1 : after]))
    return ["".join(sounds[start:end]) for start, end in zip(cuts, [*cuts[1:], len(sounds)], strict=True)]


def _closing(between: list[str]) -> int:
    """How many of the consonants between two vowels close the first syllable."""
    if len(between) < 3:
        return len(between) // 2
    if len(between) == 3 and between[0] in NASALS and tuple(between[1:]) in KEPT_TOGETHER:
        return 1
    return 2


def reduplicant(word: str) -> str:
    """What partial reduplication repeats: the first consonant, if any, and the first vowel (su-sulat, a-alis, ta-trabaho)."""
    sounds = letters(word)
    vowel = next(index for index, sound in enumerate(sounds) if is_vowel(sound))
    return ("" if vowel == 0 else sounds[0]) + sounds[vowel]
