"""sentencepiece `.model` files: encoding is sentencepiece's own, what tokens spell and how they merge is read from the file.

The file is protobuf (sentencepiece_model.proto of the sentencepiece project); the few fields needed are read here, because the classes
generated for it demand another protobuf release than the trainer does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers.folder import TOKENIZER_FILES
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer, id_dtype
from nemo_ext.tokenizers.token_bytes import METASPACE

if TYPE_CHECKING:
    from nemo_ext.tokenizers.piece_rules import PieceRules
    from nemo_ext.tokenizers.spelling import Spelling

NORMAL, BYTE = 1, 6  # ModelProto.SentencePiece.Type
BPE = 2  # TrainerSpec.ModelType
VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5  # protobuf wire types


@dataclass(frozen=True)
class ModelFile:
    """What a model file says: pieces as (text, score, type), whether they merge as BPE, and whether a space is put before every text."""

    pieces: list[tuple[str, float, int]]
    is_bpe: bool
    adds_space: bool


def read_model(path: Path) -> ModelFile:
    """Read the fields. Raises DataError when the file is not a sentencepiece model."""
    pieces: list[tuple[str, float, int]] = []
    is_bpe, adds_space = False, True
    try:
        for number, content in _fields(path.read_bytes()):
            if number == 1:
                piece: dict[str, Any] = {"score": struct.pack("<f", 0), "type": NORMAL} | _named(
                    content, {1: "text", 2: "score", 3: "type"}
                )
                pieces.append((piece["text"].decode("utf-8"), struct.unpack("<f", piece["score"])[0], piece["type"]))
            elif number == 2:
                is_bpe = _named(content, {3: "kind"}).get("kind") == BPE
            elif number == 3:
                adds_space = bool(_named(content, {3: "adds_space"}).get("adds_space", True))
    except (AttributeError, IndexError, KeyError, struct.error, TypeError, ValueError):  # other fields, or of other types
        pieces = []
    if not pieces:
        raise DataError(f"{path} is not a sentencepiece model, or damaged: it has no pieces. Restore an intact copy.")
    return ModelFile(pieces, is_bpe, adds_space)


def _named(content: Any, names: dict[int, str]) -> dict[str, Any]:
    return {names[number]: value for number, value in _fields(content) if number in names}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a protobuf message; bytes where the value is no integer."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value: Any
        if tag & 7 == VARINT:
            value, position = _varint(data, position)
        else:
            size = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(tag & 7)
            if size is None:
                if tag & 7 != COUNTED:
                    raise ValueError("unknown wire type")
                size, position = _varint(data, position)
            if position + size > len(data):
                raise ValueError("cut off")
            value, position = data[position : position + size], position + size
        yield tag >> 3, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position


class SentencePieceTokenizer(TextTokenizer):
    """A sentencepiece model, opened; `path` is the file or the folder that holds it."""

    def __init__(self, path: Path, model_path: Path) -> None:
        import sentencepiece

        self.path, self.model_path = path, model_path
        self._model = read_model(model_path)
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
        self._vocabulary = {text: number for number, (text, _, _) in enumerate(self._model.pieces)}
        self.vocab_size = len(self._model.pieces)
        self.dtype = id_dtype(self.vocab_size)
        ids = {role: getattr(self._processor, f"{role}_id")() for role in ("bos", "eos", "unk", "pad")}
        self.specials = {f"{role}_token": self._model.pieces[number][0] for role, number in ids.items() if number >= 0}
        self._decoder = {"type": "Metaspace", "prepend_scheme": "always" if self._model.adds_space else "never"}
        self.eod_id = self._end_of_document()

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the model file."""
        return hashlib.sha256(self.model_path.read_bytes()).hexdigest()

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """Bytes of text behind every id."""
        return [
            bytes([int(text[3:5], 16)]) if kind == BYTE else text.replace(METASPACE, " ").encode("utf-8")
            for text, _, kind in self._model.pieces
        ]

    @cached_property
    def spelling(self) -> Spelling:
        """What every token spells, for compiled code."""
        from nemo_ext.tokenizers.spelling import make_spelling  # brings numba, which only plugins need

        return make_spelling(self.token_bytes, np.array([kind == NORMAL for _, _, kind in self._model.pieces]))

    @cached_property
    def piece_rules(self) -> PieceRules:
        """For BPE, every pair that makes a token merges, the token of the best score first; unigram models have no merges."""
        from nemo_ext.tokenizers.piece_rules import make_rules
        from nemo_ext.tokenizers.pretokens import NO_CUTS, UNLIMITED, PretokenRule
        from nemo_ext.tokenizers.split_table import build_split_table

        merges, ranks = np.zeros((0, 3), dtype=np.uint64), np.zeros(0, dtype=np.uint64)
        if self._model.is_bpe:
            table = build_split_table(self.spelling)
            made = np.repeat(np.arange(self.vocab_size), np.diff(table.offsets))
            merges = np.stack([table.left, table.right, made], axis=1).astype(np.uint64)
            _, by_score = np.unique([-score for _, score, _ in self._model.pieces], return_inverse=True)
            ranks = by_score[made].astype(np.uint64)
        return make_rules(self.spelling, PretokenRule(NO_CUTS, UNLIMITED), merges, ranks, whole=False, starts_from_bytes=False)

    def encode_batch(self, texts: Sequence[str]) -> RaggedBatch:
        """Ids of every text, without beginning- or end-of-text tokens."""
        threads = 1 if os.environ.get("TOKENIZERS_PARALLELISM") == "false" else -1  # as workers ask of the tokenizers library
        lists = self._processor.encode(list(texts), out_type=int, num_threads=threads)
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        return from_lengths(np.fromiter(chain.from_iterable(lists), dtype=self.dtype, count=int(lengths.sum())), lengths)

    def token_text(self, token_id: int) -> str:
        """The piece as the model spells it."""
        return self._model.pieces[token_id][0]

    def copy(self, to_dir: Path | str) -> list[str]:
        """Copy the model, as tokenizer.model, and what belongs to it in its folder into `to_dir`; returns the names."""
        target = Path(to_dir)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.model_path, target / "tokenizer.model")
        others = TOKENIZER_FILES if self.path.is_dir() else ()
        names = [name for name in others if name != "tokenizer.model" and (self.path / name).is_file()]
        for name in names:
            shutil.copyfile(self.path / name, target / name)
        return ["tokenizer.model", *names]
