"""Tiny random token-classification models, saved as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.encoder_tokenizers import ENCODER_TOKENIZERS

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def save_tiny_tagger(
    folder: Path, *, labels: Sequence[str] = LABELS, context: int = 24, tokenizer: str = "word-piece", kind: str = "Bert", seed: int = 0
) -> Path:
    """A two-layer encoder of width 32 (`kind`: Bert or Roberta) with a head for `labels`, and one of our small tokenizers."""
    import torch
    import transformers

    text_tokenizer = ENCODER_TOKENIZERS[tokenizer](folder)
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=text_tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=context,
        initializer_range=0.3,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    getattr(transformers, f"{kind}ForTokenClassification")(config).save_pretrained(folder)
    return folder
