"""Documents of different lengths in one flat array: what encoders give, plugins map and dataset writers store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RaggedBatch:
    """`ids` [tokens] of all documents, end to end; document d is `ids[offsets[d]:offsets[d + 1]]`.

    `ids` are unsigned 16-bit or signed 32-bit, `offsets` [documents + 1] signed 64-bit. Treat both as read-only.
    """

    ids: NDArray[Any]
    offsets: NDArray[np.int64]

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, [documents]."""
        return np.diff(self.offsets)

    def document(self, index: int) -> NDArray[Any]:
        """Ids of one document, as a view."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def select(self, chosen: NDArray[np.bool_]) -> RaggedBatch:
        """The documents where `chosen` [documents] is true, in order."""
        lengths = self.lengths
        return from_lengths(self.ids[np.repeat(chosen, lengths)], lengths[chosen])

    def append_token(self, token_id: int) -> RaggedBatch:
        """Every document with `token_id` added at its end."""
        offsets = self.offsets + np.arange(len(self.offsets))
        ids = np.full(len(self.ids) + self.documents, token_id, dtype=self.ids.dtype)
        kept = np.ones(len(ids), dtype=bool)
        kept[offsets[1:] - 1] = False
        ids[kept] = self.ids
        return RaggedBatch(ids, offsets)


def from_lengths(ids: NDArray[Any], lengths: NDArray[Any]) -> RaggedBatch:
    """A batch from flat `ids` and the length of each document."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return RaggedBatch(ids, offsets)
