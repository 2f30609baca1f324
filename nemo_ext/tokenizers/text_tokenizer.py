"""A tokenizer for data work: batches of documents to ragged ids, ids to exact bytes. No torch, no transformers.

Document text is data: a document that spells out `<|endoftext|>` gets ordinary tokens for it, never the control token.
Chat templates and padding are left to the tasks that need them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Tokenizer

from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers import folder as tokenizer_folder
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths
from nemo_ext.tokenizers.token_bytes import bytes_of_tokens, strips_leading_space

if TYPE_CHECKING:
    from nemo_ext.tokenizers.fast_encoder import FastEncoder
    from nemo_ext.tokenizers.piece_rules import PieceRules
    from nemo_ext.tokenizers.spelling import Spelling

# Megatron's rule (megatron.core.datasets.indexed_dataset.DType.optimal_dtype): 16 bits below this many ids, else 32.
SMALL_VOCABULARY = 65_500


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype in which Megatron stores ids of a vocabulary of this size: uint16 below 65,500, else int32."""
    return np.dtype(np.uint16 if vocab_size < SMALL_VOCABULARY else np.int32)


class TextTokenizer:
    """A tokenizer folder, opened. Make one with `load`."""

    def __init__(self, path: Path, tokenizer: Tokenizer, parsed: dict[str, Any], specials: dict[str, str]) -> None:
        self.path = path
        self.specials = specials
        self._tokenizer = tokenizer
        self.parsed, self._decoder = parsed, parsed.get("decoder")
        self._vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(self._vocabulary.values()) + 1  # ids may have gaps, and an embedding needs a row for the largest
        self.dtype = id_dtype(self.vocab_size)
        self.eod_id = self._end_of_document()

    def _end_of_document(self) -> int:
        for role in ("eos_token", "sep_token"):  # BERT-style tokenizers end a text with their separator
            text = self.specials.get(role)
            if text is not None and text in self._vocabulary:
                return self._vocabulary[text]
        raise DataError(
            f"Tokenizer {self.path} has no token that ends a document: expected an eos_token or sep_token that is in the vocabulary, "
            f"found {self.specials or 'no special tokens'}. Set eos_token in its tokenizer_config.json."
        )

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the tokenizer has one."""
        return self._vocabulary.get(self.specials.get("bos_token", ""))

    @property
    def special_ids(self) -> dict[str, int]:
        """Role ("mask_token") to id, of the special tokens that are in the vocabulary."""
        return {role: self._vocabulary[text] for role, text in self.specials.items() if text in self._vocabulary}

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the tokenizer, see `nemo_ext.tokenizers.folder.fingerprint`."""
        return tokenizer_folder.fingerprint(self.path)

    @cached_property
    def added_tokens(self) -> dict[int, AddedToken]:
        """Tokens that are looked for in a text before it is encoded, by id."""
        return dict(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """Bytes of text behind every id. Raises DataError for tokenizers whose tokens do not spell the text."""
        added = {token_id: token.content for token_id, token in self.added_tokens.items()}
        return bytes_of_tokens(self._decoder, self._vocabulary, added)

    @cached_property
    def spelling(self) -> Spelling:
        """What every token spells, for compiled code. Raises DataError for tokenizers whose tokens spell neither text nor words."""
        from nemo_ext.tokenizers.spelling import spell_vocabulary  # brings numba, which only plugins need

        added = {token_id: token.content for token_id, token in self.added_tokens.items()}
        return spell_vocabulary(self._decoder, self._vocabulary, added, set(self.specials.values()))

    @cached_property
    def piece_rules(self) -> PieceRules:
        """How the tokenizer cuts pieces of text, for compiled code. Raises ConfigError when it does so in a way that is not known."""
        from nemo_ext.tokenizers.piece_rules import rules_of_json

        return rules_of_json(self.parsed, self._vocabulary, self.spelling)

    @cached_property
    def fast_encoder(self) -> FastEncoder | None:
        """An encoder that is faster and gives the same ids, if there is one for this tokenizer. Found once: that can take seconds."""
        from nemo_ext.tokenizers.fast_encoder import fast_encoder

        return fast_encoder(self)

    def encode_batch(self, texts: Sequence[str]) -> RaggedBatch:
        """Ids of every text, without beginning- or end-of-text tokens and never truncated."""
        lists = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        ids = np.fromiter(chain.from_iterable(lists), dtype=self.dtype, count=int(lengths.sum()))
        return from_lengths(ids, lengths)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes behind `ids`, special tokens spelled out."""
        table = self.token_bytes
        joined = b"".join([table[token_id] for token_id in ids])
        return joined[1:] if strips_leading_space(self._decoder) and joined[:1] == b" " else joined

    def decode(self, ids: Iterable[int]) -> str:
        """The text behind `ids`; bytes that are not valid UTF-8 (half a character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_text(self, token_id: int) -> str:
        """The vocabulary's own spelling of one token, for tokenizers of any kind."""
        return self._tokenizer.id_to_token(token_id) or ""

    def copy(self, to_dir: Path | str) -> list[str]:
        """Copy all tokenizer files into `to_dir`; returns their names."""
        return tokenizer_folder.copy_tokenizer(self.path, to_dir)


def load(path: Path | str) -> TextTokenizer:
    """Open a Hugging Face tokenizer folder, or a sentencepiece model: a .model file, or a folder with one and no tokenizer.json.

    Raises DataError when it is missing, damaged or cannot end a document.
    """
    path = Path(path)
    model = tokenizer_folder.sentencepiece_model(path)
    if model is not None:
        from nemo_ext.tokenizers.sentencepiece_model import SentencePieceTokenizer  # brings sentencepiece, which few need

        return SentencePieceTokenizer(path, model)
    parsed = tokenizer_folder.read_tokenizer_json(path)
    tokenizer = _opened(path / "tokenizer.json")
    tokenizer.no_truncation()  # a saved truncation would cut documents silently
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return TextTokenizer(path, tokenizer, parsed, tokenizer_folder.special_tokens(path))


def _opened(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  tokenizers raises nothing narrower
        raise DataError(
            f"{file} cannot be opened by the installed tokenizers {tokenizers.__version__} ({error}). Restore an intact copy, or install "
            "the version of tokenizers that wrote it."
        ) from None
