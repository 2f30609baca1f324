"""Raw documents to token ids, in this process or in several: the same results in the same order for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.documents import BLANK_LINE, Document, Problem, parse
from data_tools.lines import RawBatch, RawDocument
from data_tools.splits import SPLIT_NAMES, assign
from nemo_ext.common.errors import SibolError
from nemo_ext.common.processes import end_with_parent
from nemo_ext.tokenizers import load, plugins
from nemo_ext.tokenizers.ragged import RaggedBatch

BATCHES_PER_WORKER = 2  # enough that no worker waits for the reader, few enough to bound memory
TOO_SHORT = "too-short"
TOO_LONG = "too-long"


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
class EncodedSplit:
    """One split's share of a batch: flat `ids`, `lengths` [documents], their `text_bytes` [documents] and id numbers [documents]."""

    ids: NDArray[Any]
    lengths: NDArray[np.int64]
    text_bytes: NDArray[np.int64]
    numbers: NDArray[np.uint64]


@dataclass(frozen=True)
class EncodedBatch:
    """What became of a RawBatch."""

    splits: dict[str, EncodedSplit]
    rejects: list[Reject]
    skipped: Counter[str]
    bytes_read: int
    tokens: int


class Encoder:
    """Encodes batches: parse, tokenize, leave out by length, plugin, end-of-document token, split."""

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._tokenizer = load(settings.tokenizer_dir)
        self._plugin = plugins.create(settings.plugin, settings.plugin_settings, self._tokenizer)

    def __call__(self, batch: RawBatch) -> EncodedBatch:
        """The documents of a batch as ids, by split, and its rejects."""
        documents, rejects, skipped = self._parse(batch)
        numbers = np.array([document.number for document in documents], dtype=np.uint64)
        text_bytes = np.array([document.text_bytes for document in documents], dtype=np.int64)
        ragged = self._tokenizer.encode_batch([document.text for document in documents])
        kept = self._within_limits(ragged, skipped)  # before the plugin, so that all arms of a study keep the same documents
        ragged, numbers, text_bytes = ragged.select(kept), numbers[kept], text_bytes[kept]
        ragged = plugins.apply(self._plugin, ragged, numbers, self._settings.seed, self._tokenizer.vocab_size)
        if self._settings.append_eod:
            ragged = ragged.append_token(self._tokenizer.eod_id)
        return EncodedBatch(self._by_split(ragged, numbers, text_bytes), rejects, skipped, batch.bytes_read, len(ragged.ids))

    def _parse(self, batch: RawBatch) -> tuple[list[Document], list[Reject], Counter[str]]:
        documents, rejects, skipped = [], [], Counter[str]()
        for source in batch.documents:
            found = parse(source, self._settings.text_field, self._settings.id_field)
            if isinstance(found, Document):
                documents.append(found)
            elif found.reason == BLANK_LINE:
                skipped[BLANK_LINE] += 1
            else:
                rejects.append(Reject(source, found))
        return documents, rejects, skipped

    def _within_limits(self, ragged: RaggedBatch, skipped: Counter[str]) -> NDArray[np.bool_]:
        lengths = ragged.lengths
        short = lengths < self._settings.min_tokens
        long = lengths > self._settings.max_tokens if self._settings.max_tokens is not None else np.zeros(len(lengths), dtype=bool)
        skipped.update({reason: int(mask.sum()) for reason, mask in ((TOO_SHORT, short), (TOO_LONG, long)) if mask.any()})
        return ~(short | long)

    def _by_split(self, ragged: RaggedBatch, numbers: NDArray[np.uint64], text_bytes: NDArray[np.int64]) -> dict[str, EncodedSplit]:
        assigned, shares = assign(numbers, self._settings.split_limits), {}
        for position, name in enumerate(SPLIT_NAMES):
            if (chosen := assigned == position).any():
                part = ragged.select(chosen)
                shares[name] = EncodedSplit(part.ids, part.lengths, text_bytes[chosen], numbers[chosen])
        return shares


def encode_all(batches: Iterable[RawBatch], settings: EncodeSettings, workers: int) -> Generator[EncodedBatch, None, None]:
    """Encode batches in order; one worker is this process, where the tokenizer may use its own threads.

    Raises SibolError when a worker process dies.
    """
    if workers == 1:
        yield from map(Encoder(settings), batches)
        return
    context = multiprocessing.get_context("spawn")  # a forked child would inherit the tokenizer's threads and locks
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(settings,))
    try:
        yield from _in_order(pool, batches, workers * BATCHES_PER_WORKER)
    except BrokenProcessPool:
        raise SibolError(
            "A worker process died, perhaps for lack of memory. Use fewer --workers or give the job more memory, then run again."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[RawBatch], window: int) -> Iterator[EncodedBatch]:
    waiting: deque[Future[EncodedBatch]] = deque()
    for batch in batches:
        waiting.append(pool.submit(_encode_in_worker, batch))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_worker_encoder: Encoder | None = None  # one per worker process, made by its initializer


def _start_worker(settings: EncodeSettings) -> None:
    global _worker_encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the parent
    end_with_parent(signal.SIGKILL)  # a killed parent cannot tell its workers, and they would wait for work forever
    _worker_encoder = Encoder(settings)


def _encode_in_worker(batch: RawBatch) -> EncodedBatch:
    assert _worker_encoder is not None, "the pool's initializer ran first"
    return _worker_encoder(batch)
