"""A little text, and a tokenizer trained on it in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nemo_ext.tokenizers import TextTokenizer, train

PREFIXES = ("", "mag", "nag", "ka", "pag", "i", "ma", "tumu")
ROOTS = ("sibol", "tubo", "puno", "basa", "sulat", "laro", "bunga", "dahon", "ugat", "lupa", "ulan")
TEXTS = [
    f"Ang {PREFIXES[number % 8]}{ROOTS[number % 11]} number {number} ay {PREFIXES[number % 5]}{ROOTS[number % 7]}: "
    f"na\u00efve caf\u00e9, \u65e5\u672c\u8a9e.\n" * (1 + number % 3)
    for number in range(120)
]
VOCAB_SIZE = 320


def small_tokenizer(folder: Path) -> TextTokenizer:
    """A byte-level BPE tokenizer of 320 tokens in `folder`."""
    return train(TEXTS, VOCAB_SIZE, folder)


def write_jsonl(path: Path, documents: Iterable[Any]) -> Path:
    """One JSON line per document; plain strings become `{"text": ...}`."""
    lines = [json.dumps({"text": document} if isinstance(document, str) else document) for document in documents]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
