"""An endless stream of tokens in which a plugin transforms every document anew in every epoch, with access by position.

Epoch follows epoch. Each has all documents once, in an order shuffled by (order seed, epoch); the plugin's choices depend on
(plugin seed, epoch, document). Lengths after the transformation are known only by transforming, so an index is made once, for
as much as a run consumes, and kept in a file: where each unit of the stream ends. A longer run extends it; nothing moves.

A document is transformed in pieces of PIECE_TOKENS, so that a sequence from a book does not transform the whole book. The tokens
that begin and end documents are left out of the transformation. How the stream is cut into sequences is left to the dataset.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.errors import DataError
from nemo_ext.common.files import atomic_file, sha256_of_json
from nemo_ext.tokenizers import TextTokenizer, load, plugins
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths

INDEX_SCHEMA = "sibol.online/1"
PIECE_TOKENS = 4096
UNITS_PER_BATCH = 512  # at most 2 M tokens in memory while the index is made

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnlinePlugin:
    """Which plugin transforms, how, and with which randomness. Pickles; the plugin itself is made in each process."""

    name: str
    settings: Mapping[str, Any]  # complete, from plugins.parse_settings
    seed: int
    tokenizer_dir: str

    @cached_property
    def _made(self) -> plugins.Plugin:
        return plugins.create(self.name, self.settings, load(self.tokenizer_dir))

    @property
    def unique_identifiers(self) -> dict[str, Any]:
        """What the transformed ids depend on, besides ids and unit."""
        return {key: value for key, value in asdict(self).items() if key != "tokenizer_dir"}

    def __call__(self, batch: RaggedBatch, units: NDArray[np.uint64]) -> RaggedBatch:
        """Transform documents whose random choices are keyed by `units`."""
        return plugins.apply(self._made, batch, units, self.seed, self.tokenizer.vocab_size)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the documents."""
        return self._made.tokenizer

    @property
    def counts(self) -> Counter[str]:
        """What the plugin did in this process so far, see plugins.Plugin."""
        return self._made.counts


class OnlineStream:
    """The stream over documents of `lengths` [documents], read by `read(document, offset, length)` as they are stored.

    `data` tells token files apart in the name of the index file in `folder`.
    """

    def __init__(
        self,
        read: Callable[[int, int, int], NDArray[Any]],
        lengths: NDArray[np.int32],
        plugin: OnlinePlugin,
        order_seed: int,
        data: str,
        folder: Path,
    ) -> None:
        self._read, self._lengths, self._plugin, self._order_seed = read, lengths, plugin, order_seed
        self._pieces = np.maximum(1, -(-lengths // PIECE_TOKENS))
        self._units_per_epoch = int(self._pieces.sum())
        parts = {"schema": INDEX_SCHEMA, "data": data, "plugin": plugin.unique_identifiers, "order_seed": order_seed}
        self._file = folder / f"online-{sha256_of_json(parts)[:32]}.npy"
        self._index: NDArray[np.int64] = np.zeros((3, 0), dtype=np.int64)  # rows: where a unit ends, its document, its piece

    def require(self, tokens: int) -> None:
        """Make the index cover the first `tokens` tokens, from its file as far as that goes.

        Raises DataError when there is nothing to transform, or when the plugin changes nothing.
        """
        if not int(self._lengths.sum(dtype=np.int64)):
            raise DataError("The training split holds no tokens. Prepare the dataset again from text.")
        if self._file.is_file():
            self._index = np.load(self._file, mmap_mode="r")
        if self._covered >= tokens:
            return
        logger.info("transforming %d tokens with %s to know their lengths", tokens - self._covered, self._plugin.name)
        with atomic_file(self._file, "wb") as handle:
            np.save(handle, self._extended(tokens))
        self._index = np.load(self._file, mmap_mode="r")

    def ids(self, start: int, count: int) -> NDArray[np.int64]:
        """Ids [count] of the stream from position `start`; the index must cover them."""
        ends = self._index[0]
        first, last = (int(unit) for unit in np.searchsorted(ends, [start, start + count - 1], side="right"))
        batch = self._transformed(first, *self._index[1:, first : last + 1])
        began = int(ends[first - 1]) if first else 0
        if not np.array_equal(began + batch.offsets[1:], ends[first : last + 1]):
            raise DataError(
                f"Tokenizer plugin {self._plugin.name!r} gives documents other lengths than when {self._file} was made. If the plugin was "
                "changed, train anew in another output_dir; else it does not depend on ids, document ids and seed alone, as it must."
            )
        return batch.ids[start - began : start - began + count].astype(np.int64)

    @property
    def _covered(self) -> int:
        return int(self._index[0, -1]) if self._index.shape[1] else 0

    def _extended(self, tokens: int) -> NDArray[np.int64]:
        """The index, continued until it covers `tokens` tokens."""
        parts, covered, unit = [self._index], self._covered, self._index.shape[1]
        first_unit, order, ordered_epoch = unit, self._index[1:], -1
        changed_before = self._plugin.counts["documents_changed"]  # in other datasets of a blend
        while covered < tokens:
            epoch, position = divmod(unit, self._units_per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = self._order(epoch), epoch
            documents, pieces = order[:, position : position + UNITS_PER_BATCH]
            batch = self._transformed(unit, documents, pieces)
            parts.append(np.stack([covered + batch.offsets[1:], documents, pieces]))
            covered, unit = covered + len(batch.ids), unit + len(documents)
        if not first_unit and self._plugin.counts["documents_changed"] == changed_before:
            raise DataError(
                f"Tokenizer plugin {self._plugin.name!r} with {dict(self._plugin.settings)} changed nothing in {unit:,} documents. "
                "Check data.plugin_settings."
            )
        return np.concatenate(parts, axis=1)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Document and piece [2, units of an epoch] in the order of an epoch: documents shuffled, their pieces in order."""
        shuffled = np.random.default_rng([self._order_seed, epoch]).permutation(len(self._pieces))
        counts = self._pieces[shuffled]
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack([np.repeat(shuffled, counts), np.arange(self._units_per_epoch) - starts])

    def _transformed(self, first_unit: int, documents: NDArray[np.int64], pieces: NDArray[np.int64]) -> RaggedBatch:
        """Ids of consecutive units from number `first_unit` on."""
        parts = [self._read_piece(document, piece) for document, piece in zip(documents.tolist(), pieces.tolist(), strict=True)]
        epochs = (first_unit + np.arange(len(documents))) // self._units_per_epoch
        keys = unit_keys(epochs, documents, pieces)
        tokenizer = self._plugin.tokenizer
        return transform_inside(parts, tokenizer.bos_id, tokenizer.eod_id, lambda batch: self._plugin(batch, keys))

    def _read_piece(self, document: int, piece: int) -> NDArray[Any]:
        start = piece * PIECE_TOKENS
        return self._read(document, start, min(PIECE_TOKENS, int(self._lengths[document]) - start))


def transform_inside(
    parts: Sequence[NDArray[Any]], bos_id: int | None, eod_id: int, transform: Callable[[RaggedBatch], RaggedBatch]
) -> RaggedBatch:
    """`parts` transformed without the `bos_id` that one may begin with and the `eod_id` that it may end with, which stay in place."""
    lengths = np.array([len(part) for part in parts])
    begins = np.array([len(part) > 0 and part[0] == bos_id for part in parts], dtype=bool)
    ends = np.array([len(part) > begin and part[-1] == eod_id for part, begin in zip(parts, begins, strict=True)], dtype=bool)
    inner = [part[begin : length - end] for part, begin, length, end in zip(parts, begins, lengths, ends, strict=True)]
    result = transform(from_lengths(np.concatenate(inner), lengths - begins - ends))
    edges = np.stack([begins, ends], axis=1)
    places = np.stack([result.offsets[:-1], result.offsets[1:]], axis=1)[edges]
    tokens = np.array([-1 if bos_id is None else bos_id, eod_id])[np.nonzero(edges)[1]]
    return from_lengths(np.insert(result.ids, places, tokens), result.lengths + begins + ends)


def unit_keys(*numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One well-mixed 64-bit number per row of `numbers`, each [units].

    Each column is added and mixed by SplitMix64 (Steele, Lea and Flood 2014; constants of Vigna's splitmix64.c).
    """
    state = np.zeros(len(numbers[0]), dtype=np.uint64)
    for column in numbers:
        state = state + column.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state
