"""A Hugging Face model that gives every word of a text a label, behind one question: which labels have these words?

A word has the label of its first token, as such models are trained. What is longer than the context goes through windows that
overlap by half, and a word takes its label from the window where it has the most text on its shorter side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from evaluation.forward import padded
from evaluation.loading import ModelFolder, choose_context, choose_device, load_pretrained
from evaluation.windows import IntArray, plan_batches
from nemo_ext.common.errors import ConfigError, DataError

POSITIONS = {"cpu": 4096, "cuda": 65536}  # tokens of one batch, padding included
# Position ids of these begin behind the padding token's, so that many of max_position_embeddings are never used.
SHIFTED_POSITIONS = ("camembert", "data2vec-text", "roberta", "xlm-roberta", "xlm-roberta-xl")


@dataclass(frozen=True)
class WordLabels:
    """A label for each word; `unseen` words have no token of their own (control characters, for example) and are outside."""

    labels: tuple[str, ...]
    unseen: int


class WordClassifier(Protocol):
    """What a suite asks of it. `labels` are all that it may give."""

    labels: tuple[str, ...]

    def classify(self, sequences: Sequence[Sequence[str]], names: Sequence[str], advance: Callable[[float], None]) -> list[WordLabels]:
        """Labels of the words of each sequence, in order; `names` are for messages, `advance` is told the UTF-8 bytes that are done."""
        ...


@dataclass(frozen=True)
class _Window:
    """A piece of a sequence: its tokens, and which words take their label from which of its places."""

    sequence: int
    tokens: IntArray
    words: IntArray
    places: IntArray
    bytes: float


class TokenClassifier:
    """A loaded token-classification model and its tokenizer behind `WordClassifier`, in fp32."""

    def __init__(self, model: Any, tokenizer: Any, context: int, batch_size: int | None = None) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.device = model.device
        self.labels = tuple(str(model.config.id2label[number]) for number in range(model.config.num_labels))
        self.context = _usable_context(model.config, tokenizer, context)
        self._max_rows = batch_size or 1 << 30
        self._prefix, self._suffix = self._special_tokens()
        self._room = self.context - len(self._prefix) - len(self._suffix)
        if self._room < 2:
            raise ConfigError(f"A context of {self.context} tokens leaves {self._room} for words. Choose a larger --context.")

    def as_dict(self) -> dict[str, Any]:
        """What shapes the labels beyond the files of the model, for results.json."""
        return {"parameters": self._model.num_parameters(), "context_tokens": self.context, "labels": list(self.labels)}

    def classify(self, sequences: Sequence[Sequence[str]], names: Sequence[str], advance: Callable[[float], None]) -> list[WordLabels]:
        """Labels of the words of each sequence, see `WordClassifier`. Raises DataError where a model gives what is no number."""
        windows = self._windows(sequences)
        chosen = [np.full(len(words), -1, dtype=np.int64) for words in sequences]
        lengths = np.array([len(window.tokens) for window in windows], dtype=np.int64)
        for batch in plan_batches(lengths, self._max_rows, POSITIONS["cpu" if self.device.type == "cpu" else "cuda"]):
            pieces = [windows[number] for number in batch]
            for window, best in zip(pieces, self._label(pieces), strict=True):
                if best is None:
                    raise DataError(
                        f"The model gives a word of {names[window.sequence]} label scores that are NaN or infinite, but they must be "
                        "finite. The weights may hold NaN or infinity: check the training run that wrote them."
                    )
                chosen[window.sequence][window.words] = best
                advance(window.bytes)
        return [
            WordLabels(tuple(self.labels[number] if number >= 0 else "O" for number in numbers.tolist()), int((numbers < 0).sum()))
            for numbers in chosen
        ]

    def _encode(self, sequences: Sequence[Sequence[str]], special: bool) -> Any:
        try:
            return self._tokenizer(
                [list(words) for words in sequences],
                is_split_into_words=True,
                add_special_tokens=special,
                split_special_tokens=True,
                truncation=False,
                return_attention_mask=False,
                verbose=False,  # longer than the context is expected here
            )
        except AssertionError as error:  # how transformers refuses words for byte-level tokenizers that put no space before them
            raise ConfigError(
                f"The tokenizer in {self._tokenizer.name_or_path} takes no single words: {error}. Try --set add_prefix_space=true."
            ) from None

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text."""
        plain, framed = (self._encode([["a"]], special)["input_ids"][0] for special in (False, True))
        start = next(place for place in range(len(framed)) if framed[place : place + len(plain)] == plain)
        return framed[:start], framed[start + len(plain) :]

    def _windows(self, sequences: Sequence[Sequence[str]]) -> list[_Window]:
        if not sequences:
            return []
        encoded = self._encode(sequences, special=False)
        windows = []
        for number, words in enumerate(sequences):
            ids = np.asarray(encoded["input_ids"][number], dtype=np.int64)
            if not len(ids):
                continue
            first_of, at = np.unique(np.asarray(encoded.word_ids(number), dtype=np.int64), return_index=True)
            spans = overlapping_windows(len(ids), self._room)
            choice = widest_context(spans, at, len(ids))
            size = sum(len(word.encode()) for word in words) / len(spans)
            for window, (start, end) in enumerate(spans.tolist()):
                mine = choice == window
                tokens = np.concatenate([self._prefix, ids[start:end], self._suffix]).astype(np.int64)
                windows.append(_Window(number, tokens, first_of[mine], at[mine] - start + len(self._prefix), size))
        return windows

    @torch.inference_mode()
    def _label(self, windows: Sequence[_Window]) -> list[IntArray | None]:
        """The likeliest label at the places of each window; None where scores are not finite."""
        longest = max(len(window.tokens) for window in windows)
        inputs, mask = (tensor.to(self.device) for tensor in padded([window.tokens for window in windows]))
        try:
            logits = self._model(input_ids=inputs, attention_mask=mask).logits.float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"No memory left on {self.device} for a batch of {len(windows)} windows of {longest} tokens ({error}). "
                "Choose a smaller --batch-size or --context."
            ) from None
        scores = [logits[row, window.places] for row, window in enumerate(windows)]
        return [one.argmax(-1) if np.isfinite(one).all() else None for one in scores]


def _usable_context(config: Any, tokenizer: Any, context: int) -> int:
    """`context`, or less where the model has no positions for it or its tokenizer says so."""
    limit = getattr(config, "max_position_embeddings", None) or context
    if config.model_type in SHIFTED_POSITIONS:
        limit -= config.pad_token_id + 1
    return int(min(context, limit, tokenizer.model_max_length))


def overlapping_windows(tokens: int, room: int) -> IntArray:
    """Starts and ends `[windows, 2]` of windows of `room` tokens that overlap by half; the last one ends with the text."""
    if tokens <= room:
        return np.array([[0, tokens]], dtype=np.int64)
    starts = np.append(np.arange(0, tokens - room, (room + 1) // 2, dtype=np.int64), tokens - room)
    return np.stack([starts, starts + room], axis=1)


def widest_context(windows: IntArray, places: IntArray, tokens: int) -> IntArray:
    """The window `[places]` in which each place has the most tokens on its shorter side; the ends of the text cut nothing off."""
    starts, ends = windows[:, :1], windows[:, 1:]
    left = np.where(starts == 0, tokens, places - starts)
    right = np.where(ends == tokens, tokens, ends - 1 - places)
    inside = (places >= starts) & (places < ends)
    return np.where(inside, np.minimum(left, right), -1).argmax(axis=0)


def load_classifier(
    folder: ModelFolder,
    device: str = "auto",
    context: int | None = None,
    batch_size: int | None = None,
    add_prefix_space: bool | None = None,
) -> TokenClassifier:
    """Load a token-classification folder in fp32. `add_prefix_space` overrides what the tokenizer's settings say of words.

    Raises the errors of `evaluation.loading`, and DataError for a tokenizer that does not know which token belongs to which word.
    """
    from transformers import AutoTokenizer

    context = choose_context(folder, context)
    model, tokenizer = load_pretrained(folder, "AutoModelForTokenClassification", torch.device(choose_device(device)))
    if add_prefix_space is not None:
        tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True, add_prefix_space=add_prefix_space)
    if not tokenizer.is_fast:
        raise DataError(
            f"The tokenizer in {folder.path} is of a slow kind, which does not say to which word a token belongs. "
            "Expected a tokenizer.json: save the tokenizer again with transformers' AutoTokenizer."
        )
    return TokenClassifier(model, tokenizer, context, batch_size)
