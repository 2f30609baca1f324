"""Small tokenizers of encoders: with a mask token, and a template that puts tokens around a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nemo_ext.tokenizers import TextTokenizer, load
from tests.support.small_text import TEXTS

SPECIALS = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def bert_tokenizer(folder: Path) -> TextTokenizer:
    """WordPiece with ## inside of words, as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    specials = ["[PAD]", "[unused0]", *(text for text in SPECIALS.values() if text != "[PAD]")]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=specials, show_progress=False))
    return written(folder, tokenizer)


def modernbert_tokenizer(folder: Path) -> TextTokenizer:
    """Byte-level BPE whose special tokens come last, as ModernBERT has them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=310, initial_alphabet=alphabet, show_progress=False))
    return written(folder, tokenizer)


def metaspace_tokenizer(folder: Path) -> TextTokenizer:
    """BPE with U+2581 for a space, as encoders that were made with sentencepiece have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    spaces, punctuation = pre_tokenizers.Split("\u2581", "merged_with_next"), pre_tokenizers.Punctuation()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, punctuation])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=220, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return written(folder, tokenizer)


ENCODER_TOKENIZERS: dict[str, Callable[[Path], TextTokenizer]] = {
    "word-piece": bert_tokenizer,
    "byte-level": modernbert_tokenizer,
    "metaspace": metaspace_tokenizer,
}


def written(folder: Path, tokenizer: Tokenizer) -> TextTokenizer:
    """The tokenizer with its special tokens and BERT's template, as a Hugging Face folder."""
    tokenizer.add_special_tokens(list(SPECIALS.values()))
    ids = [(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIALS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return load(folder)
