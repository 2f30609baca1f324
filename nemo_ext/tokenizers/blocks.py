"""Very long documents in blocks, so that what a plugin holds in memory does not grow with the longest document.

A block is a document of its own to the plugin: its choices are keyed by (document, block), its shares are shares of the block. Cuts
lie before white space, so no word is in two blocks; in text without any, between characters. A document's first block has the
document's own number, so documents of one block are transformed as if there were no blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.spelling import Spelling

SEARCHED_TOKENS = 1 << 12  # at the end of a block, for a place to cut


def blocks_of(
    batch: RaggedBatch, document_ids: NDArray[np.uint64], spelling: Spelling, block_tokens: int
) -> Iterator[tuple[int, RaggedBatch, NDArray[np.uint64]]]:
    """The documents of `batch` in order, as (document, a batch of one block, the number that keys it)."""
    for number in range(batch.documents):
        ids, start, block = batch.document(number), 0, 0
        while start < len(ids) or block == 0:
            end = block_end(ids, start, spelling, block_tokens)
            part = RaggedBatch(ids[start:end], np.array([0, end - start]))
            yield number, part, np.array([block_key(int(document_ids[number]), block)], dtype=np.uint64)
            start, block = end, block + 1


def block_end(ids: NDArray[np.integer], start: int, spelling: Spelling, block_tokens: int) -> int:
    """Where the block that begins at token `start` ends: at most `block_tokens` further on."""
    limit = start + block_tokens
    if limit >= len(ids):
        return len(ids)
    first = max(start + 1, limit - SEARCHED_TOKENS)
    candidates = ids[first : limit + 1].astype(np.int64)
    spelled = spelling.offsets[candidates + 1] > spelling.offsets[candidates]
    begins = np.where(spelled, spelling.data[np.minimum(spelling.offsets[candidates], len(spelling.data) - 1)], np.uint8(ord(" ")))
    for possible in (np.isin(begins, np.frombuffer(b" \n\t\r", dtype=np.uint8)), begins & 0xC0 != 0x80):
        if possible.any():
            return first + int(np.flatnonzero(possible)[-1])
    return limit


def block_key(document_id: int, block: int) -> int:
    """The number that keys the choices in a block."""
    if block == 0:
        return document_id
    return int.from_bytes(hashlib.sha256(f"{document_id}/{block}".encode()).digest()[:8], "little")
