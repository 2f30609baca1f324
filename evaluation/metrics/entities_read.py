"""Documents with a label per word, from HIPE's TSV files and from CoNLL files; every line that is wrong is named.

A file is HIPE's when its first line is a header that begins with TOKEN; anything else is CoNLL: word first, label last (or in
the column that is asked for), an empty line after each sentence, `-DOCSTART-` before each document. Without any -DOCSTART-
every sentence counts as a document, since nothing says which of them belong together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.metrics.entities import split_label
from nemo_ext.common.errors import ConfigError, DataError, nearest

SUFFIXES = (".tsv", ".conll", ".iob", ".iob2", ".bio", ".txt")
HIPE_COLUMN = "NE-COARSE-LIT"
TOKEN_COLUMN, NOTES_COLUMN = "TOKEN", "MISC"
DOCUMENT_START = "-DOCSTART-"
METADATA = re.compile(r"#\s*(?:hipe2022:)?(document_id|date|language|dataset)\s*=\s*(.*?)\s*")
DISTANCE = re.compile(r"LED(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class TaggedDocument:
    """Words with their labels and what the file says of them, each tuple as long as `words`.

    segments: ends of the parts that no entity crosses. sentences: ends of the sentences. spaces: whether a space follows a word.
    distances: of the word's mention from what the page says (edit distance over length, "LED"), None where not given. lines:
    numbers of the lines in `file`. facts: metadata of HIPE.
    """

    id: str
    words: tuple[str, ...]
    labels: tuple[str, ...]
    segments: tuple[int, ...]
    sentences: tuple[int, ...]
    spaces: tuple[bool, ...]
    distances: tuple[float | None, ...]
    lines: tuple[int, ...]
    file: Path
    facts: dict[str, str]

    def place(self, word: int) -> str:
        """File and line of a word."""
        return f"{self.file}:{self.lines[word]}"

    def parts(self, ends: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Start and end of the parts that end at `ends`."""
        return zip((0, *ends[:-1]), ends, strict=True)

    def text(self, start: int = 0, end: int | None = None) -> str:
        """Words `start` to `end` as they stood on the page."""
        end = len(self.words) if end is None else end
        return "".join(word + " " * space for word, space in zip(self.words[start:end], self.spaces[start:end], strict=True)).strip()


@dataclass
class _Builder:
    """A document that is being read."""

    file: Path
    words: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    sentences: list[int] = field(default_factory=list)
    spaces: list[bool] = field(default_factory=list)
    distances: list[float | None] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def add(self, word: str, label: str, line: int, notes: Sequence[str] = ()) -> None:
        self.words.append(word)
        self.labels.append(label)
        self.lines.append(line)
        self.spaces.append("NoSpaceAfter" not in notes)
        self.distances.append(next((float(found[1]) for note in notes if (found := DISTANCE.fullmatch(note))), None))
        if "EndOfSentence" in notes:
            self.sentences.append(len(self.words))

    def end_segment(self) -> None:
        if self.words and (not self.segments or self.segments[-1] < len(self.words)):
            self.segments.append(len(self.words))

    def finish(self, root: Path) -> TaggedDocument:
        self.end_segment()
        name = str(self.file.relative_to(root)) if self.file != root else self.file.name
        return TaggedDocument(
            id=self.facts.get("document_id") or f"{name}:{self.lines[0]}",
            words=tuple(self.words),
            labels=tuple(self.labels),
            segments=tuple(self.segments),
            sentences=tuple(sorted({*self.sentences, *self.segments})),
            spaces=tuple(self.spaces),
            distances=tuple(self.distances),
            lines=tuple(self.lines),
            file=self.file,
            facts=self.facts,
        )


def read_tagged(path: Path, column: str | None = None) -> list[TaggedDocument]:
    """All documents of a file or a folder of files, labels from `column` (HIPE: a heading; CoNLL: a number from 1).

    Raises DataError for what is missing, damaged, masked or there twice, and ConfigError for a column that is not there.
    """
    documents: list[TaggedDocument] = []
    for file in _files(path):
        lines = _read_lines(file)
        read = _read_hipe if _is_hipe(lines) else _read_conll
        documents += [builder.finish(path) for builder in read(file, lines, column) if builder.words]
    seen: dict[str, TaggedDocument] = {}
    for document in documents:
        if document.id in seen:
            raise DataError(
                f"{document.place(0)}: the document {document.id!r} is there already, at {seen[document.id].place(0)}. "
                "Remove one of them: every document is counted once."
            )
        seen[document.id] = document
    if not documents:
        raise DataError(f"{path} holds no labelled words. Expected HIPE's TSV or CoNLL; check the path.")
    return documents


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"Data {path} does not exist. Expected a file in HIPE's TSV format or CoNLL, or a folder of such files.")
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise DataError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}. Expected files in HIPE's TSV format or CoNLL.")
    return files


def _read_lines(file: Path) -> list[tuple[int, str]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 ({error}). Convert the file to UTF-8.") from None
    return [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]


def _is_hipe(lines: Sequence[tuple[int, str]]) -> bool:
    first = next((line for _, line in lines if not line.startswith("# ")), "")
    return first.split("\t")[0] == TOKEN_COLUMN


def has_header(file: Path) -> bool:
    """Whether a file is HIPE's."""
    return _is_hipe(_read_lines(file))


def _check_label(label: str, place: str, word: str, column: str) -> None:
    if label == "_":
        raise DataError(
            f"{place}: the word {word!r} has no label in column {column} (found '_'): the file is masked, or was not annotated in this "
            "column. Take the file with the answers, or choose another column with --set column=NAME."
        )
    if split_label(label) is None:
        raise DataError(
            f"{place}: {label!r} is no label of {word!r}. Expected O, or B-, I-, E-, S-, L- or U- before a type. Mend the line."
        )


def _read_hipe(file: Path, lines: Sequence[tuple[int, str]], column: str | None) -> Iterator[_Builder]:
    column = column or HIPE_COLUMN
    header: list[str] = []
    document = _Builder(file)
    for number, line in lines:
        note = line.rstrip("\t")  # spreadsheets fill up the columns
        if note.startswith("# ") and "\t" not in note:
            if document.words and not note.startswith("# segment"):  # HIPE 2020 marks parts of a document so
                yield document
                document = _Builder(file)
            if found := METADATA.fullmatch(note):
                document.facts[found[1]] = found[2]
        elif line and not header:
            header = line.split("\t")
            _check_header(header, column, file)
        elif line.strip():
            fields = line.split("\t")
            word, label, notes = _hipe_word(fields, header, column, f"{file}:{number}")
            document.add(word, label, number, notes)
    yield document


def _check_header(header: list[str], column: str, file: Path) -> None:
    if column not in header or column in (TOKEN_COLUMN, NOTES_COLUMN):
        known = [name for name in header if name not in (TOKEN_COLUMN, NOTES_COLUMN)]
        raise ConfigError(f"{file} has no column {column!r} of labels.{nearest(column, known)} Choose it with --set column=NAME.")


def _hipe_word(fields: list[str], header: list[str], column: str, place: str) -> tuple[str, str, list[str]]:
    if len(fields) != len(header):
        raise DataError(f"{place} has {len(fields)} columns, expected {len(header)} as in the header: {fields[:3]}. Mend the line.")
    values = dict(zip(header, fields, strict=True))
    word, notes = values[TOKEN_COLUMN], values.get(NOTES_COLUMN, "").split("|")
    if not word.strip(" "):
        raise DataError(f"{place} has no word in column {TOKEN_COLUMN}: {fields[:3]}. Mend or remove the line.")
    _check_label(values[column], place, word, column)
    for note in notes:
        if note.startswith("LED") and not DISTANCE.fullmatch(note):
            raise DataError(f"{place} has {note!r} in column {NOTES_COLUMN}, expected LED and a number such as LED0.25. Mend the line.")
    return word, values[column], notes


def _read_conll(file: Path, lines: Sequence[tuple[int, str]], column: str | None) -> Iterator[_Builder]:
    if column is not None and not (column.isdecimal() and int(column) > 1):
        raise ConfigError(
            f"--set column={column}: {file} has no header with TOKEN, so it is read as CoNLL, where the column is a number of at least 2 "
            "(the word is column 1; default: the last)."
        )
    by_document = any(line.startswith(DOCUMENT_START) for _, line in lines)
    document, expected = _Builder(file), 0
    for number, line in lines:
        # No other white space separates: it may belong to a word.
        fields = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        if not line.strip() or fields[0] == DOCUMENT_START:
            document.end_segment()
            if document.words and (fields[:1] == [DOCUMENT_START] or not by_document):
                yield document
                document = _Builder(file)
            continue
        if line.startswith("#") and split_label(fields[-1]) is None:
            continue
        expected = expected or len(fields)
        document.add(*_conll_word(fields, expected, column, f"{file}:{number}"), number)
    yield document


def _conll_word(fields: list[str], expected: int, column: str | None, place: str) -> tuple[str, str]:
    wanted = int(column) if column else expected
    if len(fields) != expected or len(fields) < max(2, wanted) or not fields[0].strip(" "):
        raise DataError(
            f"{place} has {len(fields)} columns, expected {max(2, wanted, expected)}, the word first and its label in column {wanted}: "
            f"{' '.join(fields)[:80]!r}. Mend the line."
        )
    label = fields[wanted - 1]
    _check_label(label, place, fields[0], str(wanted))
    return fields[0], label
