"""Entities from labels, and how many of those predicted are right.

Strict: type, first and last word agree; on IOB2 labels this is seqeval with mode="strict", scheme=IOB2. Fuzzy: the type agrees
and the spans share a word, each mention and each prediction counting once (the HIPE shared tasks of 2020 and 2022, `ent_type` in
the code of their scorer). A prediction is read strictly, too: an I- that continues nothing begins no entity. conlleval and the
HIPE scorer let it begin one, which forgives a model labels that mean nothing; the scheme "lenient" does so, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Scheme = Literal["iob2", "iob1", "bioes", "lenient"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
OUTSIDE = "O"
SAME_PREFIX = {"U": "S", "L": "E"}  # BILOU writes BIOES in other letters


@dataclass(frozen=True, order=True)
class Entity:
    """Words `start` to `end` of a document, the end not included."""

    start: int
    end: int
    type: str

    def overlaps(self, other: Entity) -> bool:
        """Whether they share a word."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Decoded:
    """Entities in their order, and the places of labels that mean nothing in their scheme."""

    entities: tuple[Entity, ...]
    invalid: tuple[int, ...]


def split_label(label: str) -> tuple[str, str] | None:
    """Prefix and type of a label such as B-PER, the prefix in the letters of BIOES; ("O", "") outside; None for what is no label."""
    if label == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = label.partition("-")
    prefix = SAME_PREFIX.get(prefix, prefix)
    return (prefix, kind) if dash and kind and prefix in ("B", "I", "E", "S") else None


def decode(labels: Sequence[str], scheme: Scheme, offset: int = 0) -> Decoded:
    """Entities of one sentence whose first word has the number `offset`; every label must be one (`split_label`).

    iob2: B begins, I continues. iob1: I begins, too, and B only where an entity of the same type ends just before. bioes: B I E
    for several words, S for one. lenient: B begins, I continues or begins, as the HIPE scorer reads labels. What its scheme does
    not allow is no entity, and its place stands in `invalid`.
    """
    parts = [part for label in labels if (part := split_label(label))]
    assert len(parts) == len(labels)
    found, invalid = (_decode_bioes if scheme == "bioes" else _decode_iob)(parts, scheme)
    return Decoded(
        tuple(Entity(offset + start, offset + end, kind) for start, end, kind in found), tuple(offset + place for place in invalid)
    )


Spans = tuple[list[tuple[int, int, str]], list[int]]


def _decode_iob(parts: Sequence[tuple[str, str]], scheme: str) -> Spans:
    found: list[tuple[int, int, str]] = []
    invalid: list[int] = []
    for place, (prefix, kind) in enumerate(parts):
        continues = bool(found) and found[-1][1] == place and found[-1][2] == kind
        if prefix == "I" and continues:
            found[-1] = (found[-1][0], place + 1, kind)
        elif prefix == "B" or (prefix == "I" and scheme != "iob2"):
            found.append((place, place + 1, kind))
            if prefix == "B" and scheme == "iob1" and not continues:
                invalid.append(place)
        elif prefix != OUTSIDE:
            invalid.append(place)
    return found, invalid


def _decode_bioes(parts: Sequence[tuple[str, str]], scheme: str) -> Spans:
    found: list[tuple[int, int, str]] = []
    invalid: list[int] = []
    start: int | None = None  # of an entity that waits for its E
    for place, (prefix, kind) in enumerate(parts):
        inside = start is not None and parts[start][1] == kind
        if prefix in ("I", "E") and inside:
            assert start is not None
            if prefix == "E":
                found.append((start, place + 1, kind))
                start = None
            continue
        if start is not None:
            invalid.append(start)  # never ended
            start = None
        if prefix == "B":
            start = place
        elif prefix == "S":
            found.append((place, place + 1, kind))
        elif prefix != OUTSIDE:
            invalid.append(place)
    if start is not None:
        invalid.append(start)
    return found, sorted(invalid)


def encode(size: int, entities: Iterable[Entity], scheme: Scheme) -> list[str]:
    """Labels of `size` words for entities that do not overlap; what `decode` reads back."""
    labels = [OUTSIDE] * size
    for entity in sorted(entities):
        for place in range(entity.start, entity.end):
            labels[place] = f"I-{entity.type}"
        touches = entity.start > 0 and labels[entity.start - 1].endswith(f"-{entity.type}")
        if scheme != "iob1" or touches:
            labels[entity.start] = f"B-{entity.type}"
        if scheme == "bioes":
            labels[entity.end - 1] = f"{'S' if entity.end - entity.start == 1 else 'E'}-{entity.type}"
    return labels


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme | None:
    """The scheme in which all labels mean something; None when there is none. Where several are possible they say the same."""
    sentences = list(sentences)
    prefixes = {part[0] for labels in sentences for label in set(labels) if (part := split_label(label))}
    possible: tuple[Scheme, ...] = ("bioes",) if prefixes & {"E", "S"} else ("iob2", "iob1")
    for scheme in possible:
        if not any(decode(labels, scheme).invalid for labels in sentences):
            return scheme
    return None


def strict_matches(gold: Collection[Entity], predicted: Collection[Entity]) -> list[Entity]:
    """Gold entities that were predicted with their type, first and last word."""
    return sorted(set(gold) & set(predicted))


def fuzzy_matches(gold: Collection[Entity], predicted: Collection[Entity]) -> list[Entity]:
    """Gold entities that share a word with a predicted one of their type, by the rule of the HIPE scorer.

    From left to right each prediction takes the first entity that it overlaps and that no prediction before it took, whatever
    its type; the two match if their types agree. Neither side may overlap itself.
    """
    right = sorted(gold)
    ends = [entity.end for entity in right]
    matched, taken = [], set()
    for guess in sorted(predicted):
        place = bisect_right(ends, guess.start)
        while place < len(right) and right[place].overlaps(guess) and place in taken:
            place += 1
        if place < len(right) and right[place].overlaps(guess):
            taken.add(place)
            if right[place].type == guess.type:
                matched.append(right[place])
    return matched


def restrict(entities: Iterable[Entity], kept: Sequence[bool]) -> tuple[Entity, ...]:
    """What is left of entities when only the words of `kept` are left, in the new numbering.

    As in the HIPE scorer, the labels that are left are read anew: what lost its first words begins later, and may join an entity of
    its type before it.
    """
    labels = encode(len(kept), entities, "iob2")
    return decode([label for label, keep in zip(labels, kept, strict=True) if keep], "lenient").entities
