"""What the suite `ner` measures on: documents with their right entities, names known from training, and other files on the same words."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from evaluation.metrics.entities import SCHEMES, Entity, Scheme, decode, detect_scheme
from evaluation.metrics.entities_read import TaggedDocument, has_header, read_tagged
from nemo_ext.common.errors import DataError

PROMPT = (
    "Repeat the text and mark every name in it as [name | LABEL], where LABEL is one of {labels}. Change nothing else.\n"
    "Text: {text}\nMarked text: "
)
YEAR = re.compile(r"\d{4}(?=-|$)")


@dataclass(frozen=True)
class NerOptions:
    """What `--set` may choose.

    column: of labels; HIPE: a heading (default NE-COARSE-LIT), CoNLL: a number from 1 (default: the last). scheme: of the labels
    in the data; "lenient" reads IOB labels as the HIPE scorer does, predicted ones, too. labels: pairs MODEL:DATA of types that
    are named differently. train: labelled file whose names are looked up. period_years: length of the periods that dated
    documents are grouped into.

    For models that label words: by_sentence shows them one sentence at a time where the data say where sentences end, not all of
    a document; add_prefix_space puts a space before each word (default: as the tokenizer's own settings say).
    For models that write: the prompt with {text} and {labels}, whether it is a turn of a chat, most words in one prompt, and most
    tokens to write.
    """

    column: str | None = None
    scheme: Literal["auto", "iob2", "iob1", "bioes", "lenient"] = "auto"
    labels: tuple[str, ...] = ()
    train: str | None = None
    period_years: int = 50
    by_sentence: bool = False
    add_prefix_space: bool | None = None
    prompt: str = PROMPT
    chat: bool = False
    chunk_words: int = 80
    max_new_tokens: int = 400


@dataclass(frozen=True)
class NerItems:
    """Documents with their entities in the order of the words; `known_names` of a training file, None without one."""

    path: Path
    tagged: tuple[TaggedDocument, ...]
    gold: tuple[tuple[Entity, ...], ...]
    scheme: Scheme
    known_names: dict[tuple[str, ...], str] | None
    warnings: tuple[str, ...]

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.tagged)

    @cached_property
    def bytes(self) -> int:
        """UTF-8 bytes of all words."""
        return sum(len(word.encode()) for document in self.tagged for word in document.words)

    @cached_property
    def types(self) -> dict[str, int]:
        """Types of entities and how many there are of each, by name."""
        counts = Counter(entity.type for entities in self.gold for entity in entities)
        return dict(sorted(counts.items()))

    def as_dict(self) -> dict[str, Any]:
        """For results.json; `sha256` is over words, labels and document ids, so that it is the same for any kind of file."""
        digest = hashlib.sha256()
        for document, entities in zip(self.tagged, self.gold, strict=True):
            found = [(entity.start, entity.end, entity.type) for entity in entities]
            digest.update(repr((document.id, document.words, found)).encode())
        return {
            "path": str(self.path.absolute()),
            "sha256": digest.hexdigest(),
            "documents": self.documents,
            "bytes": self.bytes,
            "words": sum(len(document.words) for document in self.tagged),
            "mentions": sum(self.types.values()),
            "types": self.types,
            "scheme": self.scheme,
        }


def read_items(path: Path, options: NerOptions) -> NerItems:
    """Read and check the documents, and the training file if there is one. Raises DataError naming file and line."""
    tagged = read_tagged(path, options.column)
    scheme = _scheme(tagged, options.scheme)
    gold = tuple(_checked_entities(document, scheme) for document in tagged)
    if not any(gold):
        raise DataError(
            f"{path} holds {len(tagged)} documents without a single entity, so there is nothing to find. Choose another column."
        )
    names = None
    if options.train is not None:
        training = read_tagged(Path(options.train), options.column)
        names = count_names(training, _scheme(training, options.scheme))
    return NerItems(path, tuple(tagged), gold, scheme, names, tuple(_notes(path, tagged)))


def _notes(path: Path, tagged: Sequence[TaggedDocument]) -> list[str]:
    sentences = [document for document in tagged if not document.facts and len(document.sentences) == 1]
    if len(tagged) > 1 and len(sentences) == len(tagged):
        return [f"{path.name} does not say where documents begin, so every sentence counts as one; intervals may be too narrow."]
    return []


def _sentences(tagged: Sequence[TaggedDocument]) -> list[tuple[str, ...]]:
    return [document.labels[start:end] for document in tagged for start, end in document.parts(document.segments)]


def _scheme(tagged: Sequence[TaggedDocument], asked: str) -> Scheme:
    """The scheme of the labels. Raises DataError at the first label that it does not allow, or when there is none for all."""
    scheme = next((name for name in SCHEMES if name == asked), None) or detect_scheme(_sentences(tagged))
    if scheme is None:
        listed = "; ".join(f"{name}: {_first_invalid(tagged, name)}" for name in SCHEMES if name != "lenient")
        raise DataError(
            f"The labels of {tagged[0].file} keep to no scheme. The first label that each does not allow: {listed}. "
            "Mend it, or let an I- begin an entity with --set scheme=lenient."
        )
    if problem := _first_invalid(tagged, scheme):
        raise DataError(f"{problem}, which {scheme} does not allow. Mend it, or name the scheme with --set scheme={'|'.join(SCHEMES)}.")
    return scheme


def _first_invalid(tagged: Sequence[TaggedDocument], scheme: Scheme) -> str | None:
    for document in tagged:
        for start, end in document.parts(document.segments):
            for place in decode(document.labels[start:end], scheme, start).invalid:
                before = document.labels[place - 1] if place > start else "nothing"
                return f"{document.place(place)} has {document.labels[place]} after {before}"
    return None


def _checked_entities(document: TaggedDocument, scheme: Scheme) -> tuple[Entity, ...]:
    return entities_of(document, document.labels, scheme)[0]


def entities_of(document: TaggedDocument, labels: Sequence[str], scheme: Scheme) -> tuple[tuple[Entity, ...], int]:
    """Entities of other labels for the words of a document, and how many labels mean nothing in `scheme`."""
    decoded = [decode(labels[start:end], scheme, start) for start, end in document.parts(document.segments)]
    return tuple(entity for part in decoded for entity in part.entities), sum(len(part.invalid) for part in decoded)


def count_names(tagged: Sequence[TaggedDocument], scheme: Scheme) -> dict[tuple[str, ...], str]:
    """The type that each name most often has (of several equally often, the first in the alphabet)."""
    counts: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for document in tagged:
        for entity in entities_of(document, document.labels, scheme)[0]:
            counts[document.words[entity.start : entity.end]][entity.type] += 1
    return {name: min(types, key=lambda kind: (-types[kind], kind)) for name, types in counts.items()}


def find_names(document: TaggedDocument, names: dict[tuple[str, ...], str]) -> tuple[Entity, ...]:
    """Names that stand in a document exactly as they are known, from left to right, the longest first."""
    longest = max(map(len, names), default=0)
    found = []
    for start, end in document.parts(document.segments):
        while start < end:
            lengths = range(min(longest, end - start), 0, -1)
            size = next((size for size in lengths if document.words[start : start + size] in names), 0)
            if size:
                found.append(Entity(start, start + size, names[document.words[start : start + size]]))
            start += max(1, size)
    return tuple(found)


def read_predictions(path: Path, items: NerItems, options: NerOptions) -> list[tuple[str, ...]]:
    """Labels that a file has for the words of each document, those of a CoNLL file in its last column.

    Raises DataError unless it has the same documents and words.
    """
    predicted = read_tagged(path, options.column if has_header(path) else None)
    for one, right in zip(predicted, items.tagged, strict=False):
        for number, (word, expected) in enumerate(zip(one.words, right.words, strict=False)):
            if word != expected:
                raise DataError(
                    f"{one.place(number)} has the word {word!r}, but {right.place(number)} has {expected!r}. Predictions must be for the "
                    "same words in the same order: write a line for every line of the data."
                )
        if (len(one.words), one.segments) != (len(right.words), right.segments):
            raise DataError(
                f"{one.place(0)} begins a document of {len(one.words)} words in {len(one.segments)} parts, but at {right.place(0)} it has "
                f"{len(right.words)} words in {len(right.segments)} parts. Predictions must be cut as the data are."
            )
    if len(predicted) != len(items.tagged):
        raise DataError(f"{path} has {len(predicted)} documents, but {items.path} has {len(items.tagged)}. Predict all of them, in order.")
    return [document.labels for document in predicted]


def period(document: TaggedDocument, years: int) -> str | None:
    """The period of `years` years that a dated document lies in, such as 1850-1899."""
    found = YEAR.match(document.facts.get("date", ""))
    if found is None:
        return None
    start = int(found[0]) // years * years
    return f"{start}-{start + years - 1}"
