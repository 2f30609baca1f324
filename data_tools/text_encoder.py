"""Texts to ids by the fastest encoder that is proved to be right, in bounded memory for texts of any length."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_tools.sentences import SENTENCE_END, sentences
from nemo_ext.common.files import disk_errors
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer
from nemo_ext.tokenizers.cutting import CHUNK_CHARACTERS, CUT, can_cut, chunks
from nemo_ext.tokenizers.ragged import from_lengths

TOKENIZERS = "tokenizers"
LONGEST_CHUNK = 2  # in chunks: beyond it a text was not cut, because of its tokenizer or for want of spaces


class TextEncoder:
    """Encodes by the tokenizer itself when `name` is TOKENIZERS, else by its fast encoder.

    `counts` tells how many texts were verified and differed, and what could not be cut.
    """

    def __init__(self, tokenizer: TextTokenizer, name: str, verify: bool) -> None:
        fast = tokenizer.fast_encoder if name != TOKENIZERS else None
        self._tokenizer = tokenizer
        self._encoder = fast or tokenizer
        self._verify = verify and fast is not None
        self._can_cut = can_cut(tokenizer.path)
        self.counts: Counter[str] = Counter()

    def encode(self, texts: Sequence[str]) -> RaggedBatch:
        """Ids of every text. Where verification finds other ids than the tokenizer's, the tokenizer's are taken, and it is counted."""
        found = self._encoder.encode_batch(texts)
        if not self._verify:
            return found
        expected = self._tokenizer.encode_batch(texts)
        differ = sum(not np.array_equal(found.document(number), expected.document(number)) for number in range(len(texts)))
        self.counts.update(verified_texts=len(texts), differing_texts=differ)
        return expected

    def encode_pieces(self, pieces: Iterable[str], by_sentence: bool) -> RaggedBatch:
        """Ids of one long text given in pieces, as one sequence or as one per sentence.

        The ids wait in a temporary file until the last piece was read, for only then does the text need no memory any more.
        """
        lengths, longest = [], 0
        with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as ids:
            for texts in self._portions(pieces, by_sentence):
                longest = max(longest, sum(map(len, texts)))
                encoded = self.encode(texts)
                ids.write(encoded.ids.data)
                lengths.append(encoded.lengths)
            ids.seek(0)
            flat = np.fromfile(ids, dtype=self._tokenizer.dtype)
        self.counts["long_documents"] += 1
        if longest > LONGEST_CHUNK * CHUNK_CHARACTERS:
            self.counts["long_documents_encoded_whole"] += 1
        return from_lengths(flat, np.concatenate(lengths) if by_sentence else np.array([len(flat)]))

    def _portions(self, pieces: Iterable[str], by_sentence: bool) -> Iterator[list[str]]:
        if by_sentence:
            yield from map(sentences, chunks(pieces, SENTENCE_END, CHUNK_CHARACTERS))
        elif self._can_cut:
            yield from ([chunk] for chunk in chunks(pieces, CUT, CHUNK_CHARACTERS))
        else:
            yield ["".join(pieces)]
