"""How the suite `ner` gets entities: from a token-classification model, from the text a causal model writes, or from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.classification import WordClassifier
from evaluation.generation import Prompt, Sampling
from evaluation.metrics.alignment import find_marks
from evaluation.metrics.entities import Entity, Scheme, encode, split_label
from evaluation.metrics.entities_read import TaggedDocument
from evaluation.models import Advance
from evaluation.predictions import PredictionFile
from evaluation.suites.ner_data import NerItems, NerOptions, entities_of, read_predictions
from nemo_ext.common.errors import ConfigError, nearest


@dataclass(frozen=True)
class Found:
    """Entities predicted in a document. `misplaced`: types of those that a text marks but the document does not have."""

    entities: tuple[Entity, ...]
    misplaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """What one model predicts for all documents, and what is to be said about it."""

    items: NerItems
    found: list[Found]
    warnings: list[str]


def predict(model: Any, items: NerItems, options: NerOptions, seed: int, advance: Advance) -> Predictions:
    """Entities of all documents by a model as `evaluation.suites.ner` loads it."""
    if isinstance(model, PredictionFile):
        labels = read_predictions(model.path, items, options)
        kinds = {part[1] for label in set().union(*labels) if (part := split_label(label)) and part[1]}
        kinds |= {pair.partition(":")[0] for pair in options.labels}  # what a file does not predict may be named, too
        return from_labels(items, labels, items.scheme, match_types(sorted(kinds), items.types, options.labels) if kinds else {})
    if hasattr(model, "classify"):
        return classify(model, items, options, advance)
    return generate(model, items, options, seed, advance)


def classify(model: WordClassifier, items: NerItems, options: NerOptions, advance: Advance) -> Predictions:
    """Labels for the words of each document of HIPE, or of each sentence: of CoNLL, and where that is asked for."""
    scheme: Scheme = "lenient" if items.scheme == "lenient" else scheme_of_model(model.labels)
    types = {part[1] for label in model.labels if (part := split_label(label)) and part[1]}
    mapped = match_types(sorted(types), items.types, options.labels)  # refused before any work is done
    parts = [
        (number, start, end)
        for number, document in enumerate(items.tagged)
        for start, end in document.parts(document.sentences if options.by_sentence else document.segments)
    ]
    words = [items.tagged[number].words[start:end] for number, start, end in parts]
    given = model.classify(words, [f"document {items.tagged[number].id!r}" for number, _, _ in parts], advance)
    labels: list[list[str]] = [[] for _ in items.tagged]
    for (number, _, _), one in zip(parts, given, strict=True):
        labels[number] += one.labels
    result = from_labels(items, labels, scheme, mapped)
    unseen = sum(one.unseen for one in given)
    notes = [f"The tokenizer makes no token of {unseen:,} words; they count as outside of any entity."] if unseen else []
    return replace(result, warnings=_missing_types(set(mapped.values()), items) + result.warnings + notes)


def from_labels(items: NerItems, labels: Sequence[Sequence[str]], scheme: Scheme, mapped: dict[str, str]) -> Predictions:
    """Entities that labels say, their types named as `mapped` says."""
    decoded = [entities_of(document, one, scheme) for document, one in zip(items.tagged, labels, strict=True)]
    found = [Found(tuple(replace(entity, type=mapped[entity.type]) for entity in entities)) for entities, _ in decoded]
    invalid = sum(count for _, count in decoded)
    notes = [f"{invalid:,} predicted labels mean nothing in {scheme} (such as an I- that continues nothing) and are no entities."]
    return Predictions(items, found, notes if invalid else [])


def scheme_of_model(labels: Sequence[str]) -> Scheme:
    """The scheme of a model's labels. Raises ConfigError for labels that are none, as in a config without names."""
    parts = {label: split_label(label) for label in labels}
    wrong = [label for label, part in parts.items() if part is None]
    if wrong or "O" not in labels:
        found = f"{wrong[0]!r}, which is no label" if wrong else "none for words outside (O)"
        raise ConfigError(
            f"The model has {len(labels)} labels, among them {found}. Expected O and labels such as B-PER and I-PER in config.json "
            "(id2label): write the names of the training labels there."
        )
    prefixes = {part[0] for part in parts.values() if part}
    return "bioes" if prefixes & {"E", "S"} else "iob2" if "B" in prefixes else "iob1"


def match_types(types: Sequence[str], known: dict[str, int], pairs: Sequence[str]) -> dict[str, str]:
    """For each type that is predicted its name in the data: as `pairs` (MODEL:DATA) say, else the same in any case, else its own.

    Raises ConfigError for a pair that names nothing, and when no type is one of the data.
    """
    mapped = {}
    for pair in pairs:
        ours, colon, theirs = pair.partition(":")
        if not colon or theirs not in known:
            raise ConfigError(f"--set labels={pair}: expected MODEL:DATA, with a type of the data.{nearest(theirs, known)}")
        if ours not in types:
            raise ConfigError(f"--set labels={pair}: the model has no type {ours!r}.{nearest(ours, types)}")
        mapped[ours] = theirs
    in_any_case = {name.casefold(): name for name in known}
    found = {kind: mapped.get(kind) or (kind if kind in known else in_any_case.get(kind.casefold(), kind)) for kind in types}
    if not set(found.values()) & set(known):
        raise ConfigError(
            f"No predicted type ({', '.join(types)}) is a type of the data ({', '.join(known)}). "
            "Say which are the same with --set labels=MODEL:DATA,MODEL:DATA, or take data that fit the model."
        )
    return found


def _missing_types(types: set[str], items: NerItems) -> list[str]:
    missing = {kind: count for kind, count in items.types.items() if kind not in types}
    if not missing:
        return []
    return [f"The model has no label for {', '.join(missing)}, so {sum(missing.values()):,} mentions cannot be found."]


def chunks(document: TaggedDocument, most_words: int) -> Iterator[tuple[int, int]]:
    """Start and end of pieces of at most `most_words` words, whole sentences where they fit; a longer sentence is cut."""
    start = end = 0
    for begin, stop in document.parts(document.sentences):
        if stop - start > most_words and end > start:
            yield start, end
            start = begin
        while stop - start > most_words:
            yield start, start + most_words
            start += most_words
        end = stop
    if end > start:
        yield start, end


def generate(model: Any, items: NerItems, options: NerOptions, seed: int, advance: Advance) -> Predictions:
    """Entities that the model marks when it repeats a piece of text; greedy."""
    if "{text}" not in options.prompt:
        raise ConfigError(f"--set prompt={options.prompt!r} has no {{text}}, the place of the text to be marked.")
    pieces = [(number, start, end) for number, document in enumerate(items.tagged) for start, end in chunks(document, options.chunk_words)]
    prompt = options.prompt.replace("{labels}", ", ".join(items.types))
    prompts = [
        Prompt(f"{items.tagged[number].id}:{start}", prompt.replace("{text}", items.tagged[number].text(start, end)), chat=options.chat)
        for number, start, end in pieces
    ]
    sampling = Sampling(max_new_tokens=options.max_new_tokens, stop=() if options.chat else ("\n",), seed=seed)
    outputs = [samples[0] for samples in model.generate(prompts, sampling, advance)]
    entities: list[list[Entity]] = [[] for _ in items.tagged]
    misplaced: list[list[str]] = [[] for _ in items.tagged]
    aligned = 0
    asked = [*items.types, *(pair.partition(":")[0] for pair in options.labels)]
    names = {kind.casefold(): name for kind, name in match_types(asked, items.types, options.labels).items()}
    for (number, start, end), output in zip(pieces, outputs, strict=True):
        document = items.tagged[number]
        marks = find_marks(document.words[start:end], document.spaces[start:end], output.text, start)
        entities[number] += (replace(entity, type=names.get(entity.type.casefold(), entity.type)) for entity in marks.entities)
        misplaced[number] += (names.get(label.casefold(), label) for label in marks.misplaced)
        aligned += marks.is_aligned
    found = [Found(tuple(some), tuple(others)) for some, others in zip(entities, misplaced, strict=True)]
    unfinished = sum(not output.finished for output in outputs)
    return Predictions(items, found, _notes(len(outputs), aligned, unfinished, sum(map(len, misplaced))))


def _notes(outputs: int, aligned: int, unfinished: int, misplaced: int) -> list[str]:
    found = []
    if aligned < outputs:
        found.append(
            f"{outputs - aligned:,} of {outputs:,} generated texts repeat less than half of their source; nothing in them counts as right."
        )
    if misplaced:
        found.append(f"{misplaced:,} generated marks are on names that the source does not have there; each counts as a wrong prediction.")
    if unfinished:
        found.append(
            f"{unfinished:,} of {outputs:,} generated texts were cut at the limit; raise --set max_new_tokens or lower chunk_words."
        )
    return found


def as_lines(predictions: Predictions) -> bytes:
    """Word, right label and predicted label of every word as CoNLL in the scheme of the data, which the suite reads as predictions."""
    items, lines = predictions.items, []
    for document, gold, one in zip(items.tagged, items.gold, predictions.found, strict=True):
        lines.append("-DOCSTART-\tO\tO\n")
        columns = [encode(len(document.words), entities, items.scheme) for entities in (gold, one.entities)]
        words = ["\t".join(parts) for parts in zip(document.words, *columns, strict=True)]
        lines += ["\n".join([*words[start:end], ""]) for start, end in document.parts(document.segments)]
    return "\n".join(lines).encode()


def check_options(options: NerOptions) -> None:
    """Refuse numbers that make no sense. Raises ConfigError."""
    for name in ("period_years", "chunk_words", "max_new_tokens"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--set {name}={getattr(options, name)}: expected at least 1.")
    if options.chunk_words > 1000:
        raise ConfigError(f"--set chunk_words={options.chunk_words}: expected at most 1000, so that texts can be aligned.")
