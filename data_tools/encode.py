"""Raw documents to token ids: parse, tokenize, leave out by length, plugin, begin and end of document, split.

What comes out depends on the documents and the settings alone. Reading and writing are left to `data_tools.work`.

Memory: the tokenizer, a batch of 1 MiB of text with what becomes of it, and of a longer document its line and its ids at once. So a
line of 200 MB takes some 300 MB beside the tokenizer with a vocabulary below 65,500 ids, and with a plugin as many more as it makes
ids. Plugins are given long documents in blocks, whose size bounds what they need themselves.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.documents import BLANK_LINE, Document, Problem, parse
from data_tools.lines import RawDocument
from data_tools.long_documents import LONG_BYTES, LongDocument, parse_long
from data_tools.sentences import sentences
from data_tools.splits import assign
from data_tools.text_encoder import TextEncoder
from nemo_ext.tokenizers import TextTokenizer, plugins
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths

TOO_SHORT = "too-short"
TOO_LONG = "too-long"
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiples of it spread (Knuth, TAOCP 3, 6.4)

# What is kept about a document besides its ids. `hash` are 128 bits of the SHA-256 of its text, `split` an index into SPLIT_NAMES.
RECORD = np.dtype([("number", "<u8"), ("hash", "<u8", 2), ("bytes", "<i8"), ("tokens", "<i8"), ("sequences", "<i4"), ("split", "u1")])


@dataclass(frozen=True)
class EncodeSettings:
    """Everything a worker needs to know. `split_limits` come from `data_tools.splits.parse_split`."""

    tokenizer_dir: str
    text_field: str
    id_field: str | None
    separator: str
    sentences: bool
    prepend_bos: bool
    append_eod: bool
    split_limits: tuple[int, int, int]
    min_tokens: int
    max_tokens: int | None
    plugin: str
    plugin_settings: dict[str, Any]
    seed: int
    encoder: str
    verify_encoder: bool


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
    """Encodes batches of raw documents. `counts`: what the plugin did, and how texts were encoded."""

    def __init__(self, settings: EncodeSettings, tokenizer: TextTokenizer) -> None:
        self._settings, self._tokenizer = settings, tokenizer
        self._plugin = plugins.create(settings.plugin, settings.plugin_settings, self._tokenizer)
        self._texts = TextEncoder(self._tokenizer, settings.encoder, settings.verify_encoder)
        self.dtype = self._tokenizer.dtype

    def __call__(self, batch: Sequence[RawDocument]) -> EncodedBatch:
        """The documents of a batch as ids, and its rejects. A long document has to come alone."""
        if len(batch) == 1 and len(batch[0].raw) > LONG_BYTES:
            return self._encode_long(batch[0])
        documents, rejects, skipped = [], [], Counter[str]()
        for source in batch:
            found = parse(source, self._settings.text_field, self._settings.id_field, self._settings.separator)
            if isinstance(found, Document):
                documents.append(found)
            elif found.reason == BLANK_LINE:
                skipped[BLANK_LINE] += 1
            else:
                rejects.append(Reject(source, found))
        texts = [sentences(document.text) if self._settings.sentences else [document.text] for document in documents]
        ragged = self._texts.encode([text for document in texts for text in document])
        return self._finish(documents, list(map(len, texts)), ragged, rejects, skipped)

    def take_counts(self) -> dict[str, dict[str, int]]:
        """What was counted since the last call: by the plugin, and about encoding."""
        counts = {"plugin_counts": dict(self._plugin.counts), "encoder_counts": dict(self._texts.counts)}
        self._plugin.counts.clear()
        self._texts.counts.clear()
        return counts

    def _encode_long(self, source: RawDocument) -> EncodedBatch:
        found = parse_long(source, self._settings.text_field, self._settings.id_field, self._settings.separator)
        if isinstance(found, Problem):
            blank = found.reason == BLANK_LINE
            rejects = [] if blank else [Reject(source, found)]
            return self._finish([], [], self._texts.encode([]), rejects, Counter({BLANK_LINE: 1} if blank else {}))
        # Without a name here, so that the ids are held no longer than until the plugin has made others of them.
        return self._finish([found], None, self._texts.encode_pieces(found.pieces(), self._settings.sentences), [], Counter())

    def _finish(
        self,
        documents: Sequence[Document | LongDocument],
        sequences: list[int] | None,
        ragged: RaggedBatch,
        rejects: list[Reject],
        skipped: Counter[str],
    ) -> EncodedBatch:
        """`sequences`: how many of `ragged` each document has; None when all are those of one."""
        records = self._records(documents, [ragged.documents] if sequences is None else sequences)
        records["tokens"] = _sums(ragged.lengths, records["sequences"])
        kept = self._within_limits(records["tokens"], skipped)  # before the plugin, so that all arms of a study keep the same documents
        records, ragged = select_documents(records, ragged, kept)
        ragged = plugins.apply(self._plugin, ragged, _sequence_numbers(records), self._settings.seed, self._tokenizer.vocab_size)
        ragged = self._framed(records, ragged)
        records["tokens"] = _sums(ragged.lengths, records["sequences"])
        return EncodedBatch(records, ragged, rejects, skipped)

    def _framed(self, records: NDArray[Any], ragged: RaggedBatch) -> RaggedBatch:
        """Every document with the token that begins it and the one that ends it, as far as they are wanted."""
        ends = np.cumsum(records["sequences"], dtype=np.int64)
        if self._settings.prepend_bos:
            assert self._tokenizer.bos_id is not None, "checked before the work began"
            ragged = _inserted(ragged, ends - records["sequences"], 0, self._tokenizer.bos_id)
        return _inserted(ragged, ends - 1, 1, self._tokenizer.eod_id) if self._settings.append_eod else ragged

    def _within_limits(self, tokens: NDArray[np.int64], skipped: Counter[str]) -> NDArray[np.bool_]:
        short = tokens < self._settings.min_tokens
        long = tokens > self._settings.max_tokens if self._settings.max_tokens is not None else np.zeros(len(tokens), dtype=bool)
        skipped.update({reason: int(mask.sum()) for reason, mask in ((TOO_SHORT, short), (TOO_LONG, long)) if mask.any()})
        return ~(short | long)

    def _records(self, documents: Sequence[Document | LongDocument], sequences: list[int]) -> NDArray[Any]:
        records = np.zeros(len(documents), dtype=RECORD)
        records["number"] = [document.number for document in documents]
        records["hash"] = np.frombuffer(b"".join([document.digest for document in documents]), dtype="<u8").reshape(-1, 2)
        records["bytes"] = [document.text_bytes for document in documents]
        records["sequences"] = sequences
        records["split"] = assign(records["number"], self._settings.split_limits)
        return records


def select_documents(records: NDArray[Any], sequences: RaggedBatch, chosen: NDArray[np.bool_]) -> tuple[NDArray[Any], RaggedBatch]:
    """Records and sequences of the documents where `chosen` [documents] is true."""
    if chosen.all():
        return records, sequences
    return records[chosen], sequences.select(np.repeat(chosen, records["sequences"]))


def _sums(lengths: NDArray[np.int64], sequences: NDArray[np.int32]) -> NDArray[np.int64]:
    """Tokens of every document, from the lengths of its sequences."""
    sums = np.concatenate([[0], np.cumsum(lengths)])
    ends = np.cumsum(sequences, dtype=np.int64)
    return sums[ends] - sums[ends - sequences]


def _sequence_numbers(records: NDArray[Any]) -> NDArray[np.uint64]:
    """A stable number for every sequence: that of its document, moved on by its place in it."""
    sequences = records["sequences"].astype(np.int64)
    place = np.arange(sequences.sum()) - np.repeat(np.cumsum(sequences) - sequences, sequences)
    return np.repeat(records["number"], sequences) + place.astype(np.uint64) * GOLDEN


def _inserted(ragged: RaggedBatch, sequences: NDArray[np.int64], at_end: int, token: int) -> RaggedBatch:
    """`token` at the beginning (`at_end` 0) or end (1) of the given sequences."""
    lengths = ragged.lengths
    lengths[sequences] += 1
    limits = [0, *ragged.offsets[sequences + at_end].tolist(), len(ragged.ids)]
    inserted = np.array([token], dtype=ragged.ids.dtype)
    parts = [part for start, end in itertools.pairwise(limits) for part in (inserted, ragged.ids[start:end])]
    return from_lengths(np.concatenate(parts[1:]), lengths)  # np.insert would need a mask of all ids besides
