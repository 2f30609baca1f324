"""A small tokenizer of every kind that plugins work on, trained on a little text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, load
from nemo_ext.tokenizers.ragged import from_lengths
from tests.support.small_text import TEXTS, small_tokenizer

KIND_VOCABULARY = 420


def metaspace_tokenizer(folder: Path) -> TextTokenizer:
    """BPE with U+2581 for a space and <0xNN> for the bytes of unknown characters, as Gemma has it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # for training only: no token goes over a space
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=KIND_VOCABULARY, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([text.replace("\u65e5\u672c\u8a9e", "") for text in TEXTS], trainer)
    parsed = json.loads(tokenizer.to_str())
    parsed["added_tokens"] = [token for token in parsed["added_tokens"] if not token["content"].startswith("<0x")]
    parsed["pre_tokenizer"] = None
    return write_folder(folder, parsed, {"eos_token": "<eos>", "unk_token": "<unk>"})


def word_piece_tokenizer(folder: Path) -> TextTokenizer:
    """WordPiece with ## inside of words, as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=KIND_VOCABULARY - 200, special_tokens=["[UNK]", "[SEP]", "[CLS]", "[unused1]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return write_folder(folder, json.loads(tokenizer.to_str()), {"sep_token": "[SEP]", "unk_token": "[UNK]", "cls_token": "[CLS]"})


def write_folder(folder: Path, parsed: dict[str, object], settings: dict[str, str]) -> TextTokenizer:
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(parsed), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return load(folder)


def sentencepiece_tokenizer(folder: Path, kind: str = "bpe") -> TextTokenizer:
    """A sentencepiece .model file with byte fallback, as Llama 2 has it; `kind` is bpe or unigram."""
    import sentencepiece

    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXTS for line in text.splitlines()),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=KIND_VOCABULARY,
        model_type=kind,
        byte_fallback=True,
        character_coverage=0.99,
        user_defined_symbols=["<number>"],
        hard_vocab_limit=False,  # a unigram model may find fewer pieces
        minloglevel=2,
    )
    return load(folder)


def unigram_tokenizer(folder: Path) -> TextTokenizer:
    """A sentencepiece unigram model."""
    return sentencepiece_tokenizer(folder, "unigram")


KINDS: dict[str, Callable[[Path], TextTokenizer]] = {
    "byte-level": small_tokenizer,
    "metaspace": metaspace_tokenizer,
    "word-piece": word_piece_tokenizer,
    "sentencepiece": sentencepiece_tokenizer,
    "unigram": unigram_tokenizer,
}


def spelled(tokenizer: TextTokenizer, ids: list[int]) -> bytes:
    """What ids spell, token by token."""
    spelling = tokenizer.spelling
    return b"".join(spelling.data[spelling.offsets[token] : spelling.offsets[token + 1]].tobytes() for token in ids)


def documents_of(batch: RaggedBatch) -> list[list[int]]:
    """A batch as lists."""
    return [batch.document(number).tolist() for number in range(batch.documents)]


def ragged(documents: list[list[int]]) -> RaggedBatch:
    """Lists as a batch."""
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    return from_lengths(np.array(list(chain.from_iterable(documents)), dtype=np.uint16), lengths)


def total_variation(one: Counter[tuple[int, ...]], two: Counter[tuple[int, ...]]) -> float:
    """Half the sum of the differences of two samples of the same size, as shares."""
    return sum(abs(one[key] - two[key]) for key in one | two) / (2 * one.total())
