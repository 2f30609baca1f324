"""Inflection of Filipino roots: prefixes, infixes, suffixes, their combinations and reduplication, with the changes of sound.

An affix is written as in grammars: "mag-", "-um-", "-in", "ka-+-an", and a final R for the repeated first syllable ("mag-R":
magsusulat, "-um-R": sumusulat, "R": susulat). A root is spelled as usual, with an apostrophe for a glottal stop at its end,
which ordinary spelling leaves out and suffixes depend on (luto': lutuin, but basa: basahin). Rules, after P. Schachter and
F. T. Otanes, Tagalog Reference Grammar (1972), chapters 1 and 5, and the Ortograpiyang Pambansa (2014) for hyphens:

- Infixes follow the first consonant, or precede a vowel: s-um-ulat, um-alis. Before l, r, w and y, -in- is written ni- as well as
  infixed (niluto, linuto); ni- is given first.
- mang-, nang-, pang- and their kin take the place of the next sound: m before p and b, n before t, s, d, l and r. The voiceless
  p, t, s and k then disappear (mang- + takot: manakot; pang- + kuha: panguha), b, d, g, l and r stay (pambili, pandilig).
- Suffixes turn o of the last syllable into u, begin with h after a vowel without a glottal stop, and turn a final d into r.
- A prefix that ends in a consonant is set off by a hyphen before a vowel (mag-aral), mang- and nang- are not (mangisda).

What does not follow the rules (dala: dalhin, sunod: sundin) is listed with the root in `filipino.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from evaluation.benchmarks.syllables import is_vowel, letters, reduplicant

GLOTTAL = "'"
NASAL_PREFIXES = ("mang", "nang", "pang", "ipang", "mapang", "sing", "kasing", "magsing")
LOSES_NOTHING = ("sing", "kasing", "magsing")  # sinlaki, kasintanda: only the prefix changes
WITHOUT_HYPHEN = ("mang", "nang")
ASSIMILATED = {**dict.fromkeys("pb", "m"), **dict.fromkeys("tsdlr", "n")}
LOST = frozenset("ptsk")
LIQUIDS = frozenset("lrwy")


@dataclass(frozen=True)
class Affix:
    """The parts of an affix; `repeats`: with reduplication of the root's first syllable."""

    prefix: str = ""
    infix: str = ""
    suffix: str = ""
    repeats: bool = False

    @property
    def kind(self) -> str:
        """prefix, infix, suffix, circumfix (prefix and suffix), infix_suffix or reduplication."""
        parts = [name for name in ("prefix", "infix", "suffix") if getattr(self, name)]
        return {"prefix_suffix": "circumfix", "": "reduplication"}.get("_".join(parts), "_".join(parts))


@cache
def parse_affix(written: str) -> Affix:
    """The affix of its notation, such as "-um-", "ka-+-an" or "mag-R"."""
    repeats = written.endswith("R")
    parts = {"prefix": "", "infix": "", "suffix": ""}
    for part in written.removesuffix("R").split("+"):
        name = ("infix" if part.endswith("-") else "suffix") if part.startswith("-") else "prefix"
        parts[name] = part.strip("-")
    return Affix(**parts, repeats=repeats)


def spelled(root: str) -> str:
    """A root as it is written: without the mark of a glottal stop."""
    return root.removesuffix(GLOTTAL)


def inflect(root: str, affix: Affix) -> tuple[str, ...]:
    """The forms of a root with an affix by rule, the usual one first."""
    stem = _suffixed(root, affix.suffix) if affix.suffix else spelled(root)
    if affix.prefix in NASAL_PREFIXES:
        return (_with_nasal_prefix(stem, affix),)
    if affix.repeats:
        stem = reduplicant(stem) + stem
    forms = _infixed(stem, affix.infix) if affix.infix else (stem,)
    return tuple(_prefixed(affix.prefix, form) for form in forms) if affix.prefix else forms


def surface_notation(root: str, affix: Affix) -> str:
    """The affix as it shows in the form: "-hin" after a vowel, "um-" before one; without the mark of reduplication."""
    parts = []
    if affix.prefix:
        parts.append(affix.prefix + "-")
    if affix.infix:
        parts.append(affix.infix + "-" if is_vowel(root[0]) else f"-{affix.infix}-")
    if affix.suffix:
        parts.append("-" + linked_suffix(root, affix.suffix))
    return "+".join(parts)


def linked_suffix(root: str, suffix: str) -> str:
    """-hin and -han after a vowel that no glottal stop ends, otherwise -in and -an."""
    return "h" + suffix if is_vowel(root[-1]) else suffix


def _suffixed(root: str, suffix: str) -> str:
    sounds = letters(spelled(root))
    last_vowel = max(index for index, sound in enumerate(sounds) if is_vowel(sound))
    if sounds[last_vowel] == "o":
        sounds[last_vowel] = "u"
    if sounds[-1] == "d" and is_vowel(sounds[-2]):
        sounds[-1] = "r"
    return "".join(sounds) + linked_suffix(root, suffix)


def _infixed(stem: str, infix: str) -> tuple[str, ...]:
    sounds = letters(stem)
    if is_vowel(sounds[0]):
        return (infix + stem,)
    inside = sounds[0] + infix + "".join(sounds[1:])
    return ("ni" + stem, inside) if infix == "in" and sounds[0] in LIQUIDS else (inside,)


def _prefixed(prefix: str, stem: str) -> str:
    hyphen = not is_vowel(prefix[-1]) and is_vowel(stem[0]) and prefix not in WITHOUT_HYPHEN
    return prefix + ("-" if hyphen else "") + stem


def _with_nasal_prefix(stem: str, affix: Affix) -> str:
    """mang- + takot: manakot, with the first syllable repeated mananakot; mang- + bola: mambola, mambobola."""
    base, first = affix.prefix.removesuffix("ng"), letters(stem)[0]
    nasal = ASSIMILATED.get(first, "ng")
    if first in LOST and affix.prefix not in LOSES_NOTHING:
        stem = nasal + stem[1:]
    elif is_vowel(first) and affix.repeats:
        stem = nasal + stem  # ma-ngi-ngisda
    else:
        repeated = reduplicant(stem) if affix.repeats else ""
        return _prefixed(base + nasal, repeated + stem)
    return base + (reduplicant(stem) if affix.repeats else "") + stem
