"""Raw documents to token ids: parse, tokenize, leave out by length, plugin, begin and end of document, split.

What comes out depends on the documents and the settings alone. Reading and writing are left to `data_tools.work`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.documents import BLANK_LINE, Document, Problem, parse
from data_tools.lines import RawDocument
from data_tools.splits import assign
from nemo_ext.tokenizers import load, plugins
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths

TOO_SHORT = "too-short"
TOO_LONG = "too-long"

# What is kept about a document besides its ids. `hash` are 128 bits of the SHA-256 of its text, `split` an index into SPLIT_NAMES.
RECORD = np.dtype([("number", "<u8"), ("hash", "<u8", 2), ("bytes", "<i8"), ("tokens", "<i8"), ("sequences", "<i4"), ("split", "u1")])


@dataclass(frozen=True)
class EncodeSettings:
    """Everything a worker needs to know. `split_limits` come from `data_tools.splits.parse_split`."""

    tokenizer_dir: str
    text_field: str
    id_field: str | None
    append_eod: bool
    split_limits: tuple[int, int, int]
    min_tokens: int
    max_tokens: int | None
    plugin: str
    plugin_settings: dict[str, Any]
    seed: int


class Reject(NamedTuple):
    """A line that holds no document, and why."""

    source: RawDocument
    problem: Problem


@dataclass(frozen=True)
class EncodedBatch:
    """Documents as ids: `records` [documents] of RECORD, and `sequences`, the ragged ids of `records["sequences"]` per document."""

    records: NDArray[Any]
    sequences: RaggedBatch
    rejects: list[Reject]
    skipped: Counter[str]


class Encoder:
    """Encodes batches of raw documents."""

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._tokenizer = load(settings.tokenizer_dir)
        self._plugin = plugins.create(settings.plugin, settings.plugin_settings, self._tokenizer)
        self.dtype = self._tokenizer.dtype

    def __call__(self, batch: Sequence[RawDocument]) -> EncodedBatch:
        """The documents of a batch as ids, and its rejects."""
        documents, rejects, skipped = self._parse(batch)
        ragged = self._tokenizer.encode_batch([document.text for document in documents])
        kept = self._within_limits(ragged.lengths, skipped)  # before the plugin, so that all arms of a study keep the same documents
        records, ragged = self._records(documents)[kept], ragged.select(kept)
        ragged = plugins.apply(self._plugin, ragged, records["number"], self._settings.seed, self._tokenizer.vocab_size)
        if self._settings.append_eod:
            ragged = ragged.append_token(self._tokenizer.eod_id)
        records["tokens"] = ragged.lengths
        return EncodedBatch(records, ragged, rejects, skipped)

    def _parse(self, batch: Sequence[RawDocument]) -> tuple[list[Document], list[Reject], Counter[str]]:
        documents, rejects, skipped = [], [], Counter[str]()
        for source in batch:
            found = parse(source, self._settings.text_field, self._settings.id_field)
            if isinstance(found, Document):
                documents.append(found)
            elif found.reason == BLANK_LINE:
                skipped[BLANK_LINE] += 1
            else:
                rejects.append(Reject(source, found))
        return documents, rejects, skipped

    def _within_limits(self, tokens: NDArray[np.int64], skipped: Counter[str]) -> NDArray[np.bool_]:
        short = tokens < self._settings.min_tokens
        long = tokens > self._settings.max_tokens if self._settings.max_tokens is not None else np.zeros(len(tokens), dtype=bool)
        skipped.update({reason: int(mask.sum()) for reason, mask in ((TOO_SHORT, short), (TOO_LONG, long)) if mask.any()})
        return ~(short | long)

    def _records(self, documents: list[Document]) -> NDArray[Any]:
        records = np.zeros(len(documents), dtype=RECORD)
        records["number"] = [document.number for document in documents]
        records["hash"] = np.frombuffer(b"".join([document.digest for document in documents]), dtype="<u8").reshape(-1, 2)
        records["bytes"] = [document.text_bytes for document in documents]
        records["sequences"] = 1
        records["split"] = assign(records["number"], self._settings.split_limits)
        return records


def select_documents(batch: EncodedBatch, chosen: NDArray[np.bool_]) -> tuple[NDArray[Any], RaggedBatch]:
    """Records and sequences of the documents where `chosen` [documents] is true."""
    of_sequences = np.repeat(chosen, batch.records["sequences"])
    lengths = batch.sequences.lengths
    return batch.records[chosen], from_lengths(batch.sequences.ids[np.repeat(of_sequences, lengths)], lengths[of_sequences])
