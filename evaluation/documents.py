"""Documents to score: JSONL and text files, folders of them, or a split of a Sibol dataset folder, checked before any scoring.

Reads text and hands it on unchanged; tokens of a dataset are decoded with the tokenizer that travels with it, so that
models with any tokenizer are compared on the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.records import SNIPPET_CHARACTERS, byte_count, decode_utf8, find_files, open_binary, parse_object
from nemo_ext.common.dataset import MANIFEST_NAME, DatasetInfo, SplitInfo, open_dataset
from nemo_ext.common.errors import ConfigError, DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz")
DEFAULT_SPLIT = "test"
DECODED_AT_ONCE = 256


@dataclass(frozen=True)
class Document:
    """One text to score. `domain` groups documents in the report; `bytes` is the length in UTF-8."""

    id: str
    text: str
    bytes: int
    domain: str | None = None


@dataclass(frozen=True)
class Documents:
    """A collection that can be read any number of times; the counts and the digest come from a first, complete reading.

    `sha256` is over the texts in order (each preceded by its length in bytes), so the same texts have the same digest
    whether they come from JSONL or from a dataset. Empty documents are counted and left out: they have no bytes to predict.
    """

    path: Path
    kind: str
    split: str | None
    documents: int
    bytes: int
    sha256: str
    empty_documents: int
    warnings: tuple[str, ...]
    read: Callable[[], Iterator[Document]]

    def __iter__(self) -> Iterator[Document]:
        return (document for document in self.read() if document.bytes)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "path": str(self.path.absolute()),
            "kind": self.kind,
            "split": self.split,
            "sha256": self.sha256,
            "documents": self.documents,
            "bytes": self.bytes,
            "empty_documents": self.empty_documents,
        }


def open_documents(path: Path | str, split: str | None = None, text_field: str = "text") -> Documents:
    """Open and check the documents at `path`, reading all of them once.

    `split` (default "test") is for a dataset folder; `text_field` names the text in JSONL records, whose optional fields
    `id` and `domain` are used too. Raises DataError for anything that cannot be read, naming file and line, and
    ConfigError for a split of something that has none.
    """
    path = Path(path)
    if (path / MANIFEST_NAME).is_file():
        info = open_dataset(path)
        chosen = _choose_split(info, split or DEFAULT_SPLIT)
        documents = _survey(path, "sibol dataset", chosen.name, lambda: _read_dataset(info, chosen), chosen.bytes)
    elif split is not None:
        raise ConfigError(f"--split {split} was given, but {path} is not a Sibol dataset folder and has no splits. Leave the option out.")
    else:
        files = find_files(path, SUFFIXES, "a Sibol dataset folder, or a file or folder of files")
        documents = _survey(path, "text files", None, lambda: _read_files(path, files, text_field), None)
    if not documents.documents:
        raise DataError(f"{path} holds no text to score ({documents.empty_documents} empty documents). Check the path.")
    return documents


def _survey(path: Path, kind: str, split: str | None, read: Callable[[], Iterator[Document]], expected_bytes: int | None) -> Documents:
    digest = hashlib.sha256()
    counts = {"documents": 0, "bytes": 0, "empty": 0}
    for document in read():
        if not document.bytes:
            counts["empty"] += 1
            continue
        counts["documents"] += 1
        counts["bytes"] += document.bytes
        digest.update(document.bytes.to_bytes(8, "little"))
        digest.update(document.text.encode())
    warnings = []
    if expected_bytes is not None and counts["bytes"] != expected_bytes:
        warnings.append(
            f"The decoded documents have {counts['bytes']:,} bytes, their originals had {expected_bytes:,}: "
            "the dataset's tokenizer does not give its text back exactly."
        )
    return Documents(path, kind, split, counts["documents"], counts["bytes"], digest.hexdigest(), counts["empty"], tuple(warnings), read)


def _choose_split(info: DatasetInfo, split: str) -> SplitInfo:
    if split not in info.splits:
        raise ConfigError(f"Dataset {info.path} has no split {split!r}. It has: {', '.join(info.splits)}. Choose one with --split.")
    return info.splits[split]


def _read_dataset(info: DatasetInfo, split: SplitInfo) -> Iterator[Document]:
    """Documents of a split, decoded and without the end-of-document token that preparation appended."""
    from tokenizers import Tokenizer

    from evaluation.indexed import read_documents

    tokenizer = Tokenizer.from_file(str(info.tokenizer_dir / "tokenizer.json"))
    batch: list[list[int]] = []
    number = 0
    for ids in read_documents(split.prefix):
        if info.append_eod and (not len(ids) or ids[-1] != info.eod_id):
            raise DataError(
                f"Document {number + len(batch)} of {split.prefix}.bin does not end with the end-of-document token {info.eod_id}, "
                "although the manifest says so. Prepare the dataset again."
            )
        batch.append((ids[:-1] if info.append_eod else ids).tolist())
        if len(batch) == DECODED_AT_ONCE:
            yield from _decode(tokenizer, batch, split.name, number)
            number, batch = number + len(batch), []
    yield from _decode(tokenizer, batch, split.name, number)


def _decode(tokenizer: Any, batch: list[list[int]], split: str, first_number: int) -> Iterator[Document]:
    for number, text in enumerate(tokenizer.decode_batch(batch, skip_special_tokens=False), first_number):
        yield Document(f"{split}/{number}", text, len(text.encode()))


def _read_files(root: Path, files: list[Path], text_field: str) -> Iterator[Document]:
    for file in files:
        name = str(file.relative_to(root)) if file != root else file.name
        with open_binary(file) as handle:
            if ".jsonl" in file.suffixes:
                for number, line in enumerate(handle, 1):
                    if line.strip():
                        yield _parse_record(line, file, number, text_field, f"{name}:{number}")
            else:
                yield _text_document(decode_utf8(handle.read(), str(file)), name, str(file))


def _parse_record(line: bytes, file: Path, number: int, text_field: str, default_id: str) -> Document:
    place = f"{file}:{number}"
    record = parse_object(line, place)
    if not isinstance(record.get(text_field), str):
        snippet = line.decode().strip()[:SNIPPET_CHARACTERS]
        raise DataError(
            f"{place} has no text in field {text_field!r} (found fields {', '.join(record) or '(none)'}): {snippet!r}. "
            "Expected a JSON object with the text as a string; name the field with --text-field."
        )
    domain = record.get("domain")
    if domain is not None and not isinstance(domain, str):
        raise DataError(f"{place} has a domain that is not a string: {domain!r}. Make it a string or remove it.")
    return _text_document(record[text_field], str(record.get("id", default_id)), place, domain)


def _text_document(text: str, identity: str, place: str, domain: str | None = None) -> Document:
    return Document(identity, text, byte_count(text, place), domain)
