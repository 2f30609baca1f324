"""What a suite may ask of a language model, and a Hugging Face folder that answers.

A model is a tokenizer and two questions (how likely is this continuation, how likely is this document), which is the idea
of `lm_eval.api.model.LM`. Scores are natural logarithms from fp32 logits, summed in fp64. Checking and reading the folder is
the business of `evaluation.loading`, cutting and batching that of `evaluation.windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from evaluation.documents import Document
from evaluation.windows import IntArray, plan_batches, rolling_windows
from nemo_ext.common.errors import ConfigError, DataError

CHUNK_BYTES = 64 << 20  # fp32 logits whose log-sum-exp is taken in one step
# Logits of one batch; a single long window may exceed it. On a CPU small batches are faster, because they stay in the caches
# (a model of 6 layers, width 256, vocabulary 4,096: 2,700 tokens/s of one core with 32 MiB, 2,200 with 256 MiB).
LOGIT_BYTES = {"cpu": 32 << 20, "cuda": 2 << 30}
Advance = Callable[[float], None]  # told the UTF-8 bytes of text scored since the last call
Scores = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]  # log-likelihood in nats, and whether nothing was more likely


@dataclass(frozen=True)
class Request:
    """How likely is `continuation` after `context`? `id` is for messages."""

    id: str
    context: str
    continuation: str


@dataclass(frozen=True)
class ContinuationScore:
    """Log-likelihood in nats over the continuation's tokens; `is_greedy`: at no place was another token more likely."""

    log_likelihood: float
    tokens: int
    bytes: int
    is_greedy: bool


@dataclass(frozen=True)
class DocumentScore:
    """Log-likelihood in nats. `unknown_tokens` and `exact` (decoding gives the text back) tell whether the text was lost in tokens."""

    log_likelihood: float
    tokens: int
    unknown_tokens: int
    exact: bool


class LanguageModel(Protocol):
    """What suites need. `vocab_size` is the number of outcomes of the model's distribution, `context` in tokens."""

    vocab_size: int
    context: int

    def log_likelihood(self, requests: Sequence[Request], advance: Advance) -> list[ContinuationScore]:
        """Scores in the order of the requests; `advance` is called as work goes on."""
        ...

    def rolling_log_likelihood(
        self, documents: Sequence[Document], stride: int, score_end_of_document: bool, advance: Advance
    ) -> list[DocumentScore]:
        """Scores of whole documents, each token once, in windows where they are longer than the context."""
        ...


class HuggingFaceModel:
    """A loaded causal model and its tokenizer behind `LanguageModel`.

    The first token of a document is conditioned on the prefix token: BOS, or EOS where the tokenizer has no BOS (as in
    lm-evaluation-harness, `HFLM.prefix_token_id`). No other special tokens are added.
    """

    def __init__(self, model: Any, tokenizer: Any, context: int, batch_size: int | None = None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.context = context
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self.device = model.device
        self._max_rows = batch_size or 1 << 30
        self._max_positions = LOGIT_BYTES["cpu" if self.device.type == "cpu" else "cuda"] // (4 * self.vocab_size)
        self.prefix_token = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if self.prefix_token is None:
            raise DataError(
                f"The tokenizer in {tokenizer.name_or_path} defines neither a BOS nor an EOS token to condition the first token on."
            )

    def as_dict(self) -> dict[str, Any]:
        """What shapes the scores beyond the files of the model, for results.json."""
        return {
            "parameters": self._model.num_parameters(),
            "vocab_size": self.vocab_size,
            "context_tokens": self.context,
            "prefix_token": self._tokenizer.convert_ids_to_tokens(self.prefix_token),
        }

    def encode(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of each text, without special tokens and without truncation; special tokens spelled in the text are text."""
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            return_attention_mask=False,
            verbose=False,  # documents longer than the context are expected here, they go through windows
        )
        return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]

    def rolling_log_likelihood(
        self, documents: Sequence[Document], stride: int, score_end_of_document: bool, advance: Advance
    ) -> list[DocumentScore]:
        """Scores of whole documents, see `LanguageModel`. Raises DataError naming a document that cannot be scored."""
        encoded = self.encode([document.text for document in documents])
        exact = [text == document.text for text, document in zip(self._decode(encoded), documents, strict=True)]
        unknown = self._tokenizer.unk_token_id
        end = [self._end_token()] if score_end_of_document else []
        sequences = [np.concatenate([[self.prefix_token], ids, end]).astype(np.int64) for ids in encoded]
        windows = [rolling_windows(len(sequence) - 1, self.context, stride) for sequence in sequences]
        owners = np.repeat(np.arange(len(documents)), [len(rows) for rows in windows])
        names = [f"document {document.id!r}" for document in documents]
        sizes = np.array([document.bytes for document in documents])
        scores, _ = self._score(sequences, owners, np.concatenate(windows or [np.empty((0, 3), np.int64)]), names, sizes, advance)
        totals = np.bincount(owners, weights=scores, minlength=len(documents))
        return [
            DocumentScore(float(total), len(ids) + len(end), 0 if unknown is None else int((ids == unknown).sum()), same)
            for total, ids, same in zip(totals, encoded, exact, strict=True)
        ]

    def log_likelihood(self, requests: Sequence[Request], advance: Advance) -> list[ContinuationScore]:
        """Scores of continuations, see `LanguageModel`. Raises DataError for one that is empty or does not fit the context.

        White space at the end of a context counts as the beginning of the continuation, and both are encoded as one text,
        because that is how the model saw such text in training (lm-evaluation-harness, `TemplateLM._encode_pair`).
        """
        contexts = self.encode([request.context.rstrip() for request in requests])
        wholes = self.encode([request.context + request.continuation for request in requests])
        sequences, windows = [], []
        for request, context, whole in zip(requests, contexts, wholes, strict=True):
            sequence = whole if len(context) else np.concatenate([[self.prefix_token], whole]).astype(np.int64)
            scored = len(whole) - len(context)
            if scored < 1 or len(sequence) - 1 > self.context:
                raise DataError(
                    f"Request {request.id!r} has {scored} tokens to score after {len(context)} tokens of context; expected at least 1, "
                    f"and at most {self.context} in all. Shorten the item or choose a larger --context."
                )
            sequences.append(sequence)
            windows.append((0, len(sequence) - 1, scored))
        names = [f"request {request.id!r}" for request in requests]
        rows = np.asarray(windows, dtype=np.int64).reshape(-1, 3)
        sizes = np.array([len(request.continuation.encode()) for request in requests])
        scores, greedy = self._score(sequences, np.arange(len(requests)), rows, names, sizes, advance)
        results = zip(scores, rows[:, 2], sizes, greedy, strict=True)
        return [ContinuationScore(float(score), int(tokens), int(size), bool(best)) for score, tokens, size, best in results]

    def _end_token(self) -> int:
        if self._tokenizer.eos_token_id is None:
            raise DataError(f"The tokenizer in {self._tokenizer.name_or_path} has no EOS token to score. Leave out --score-eod.")
        return int(self._tokenizer.eos_token_id)

    def _decode(self, encoded: Sequence[IntArray]) -> list[str]:
        return list(
            self._tokenizer.batch_decode([ids.tolist() for ids in encoded], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def _check_ids(self, sequences: Sequence[IntArray], names: Sequence[str]) -> None:
        for sequence, name in zip(sequences, names, strict=True):
            if sequence.max() >= self.vocab_size:
                raise DataError(
                    f"The tokenizer gives token id {sequence.max()} in {name}, but the model has a vocabulary of {self.vocab_size}. "
                    "The tokenizer in this folder does not belong to the model."
                )

    def _score(
        self, sequences: Sequence[IntArray], owners: IntArray, windows: IntArray, names: Sequence[str], sizes: IntArray, advance: Advance
    ) -> Scores:
        """Log-likelihood and greediness of each window (start, end, scored) of `sequences[owner]`, which has `sizes[owner]` bytes."""
        self._check_ids(sequences, names)
        tokens = np.bincount(owners, weights=windows[:, 2], minlength=len(sequences))
        window_bytes = windows[:, 2] * (sizes / np.maximum(tokens, 1))[owners]
        scores, greedy = np.zeros(len(windows)), np.zeros(len(windows), dtype=bool)
        for batch in plan_batches(windows[:, 1] - windows[:, 0], self._max_rows, self._max_positions):
            pieces = [(sequences[owners[row]], *windows[row].tolist()) for row in batch]
            scores[batch], greedy[batch] = self._score_batch(pieces)
            for row in batch[~np.isfinite(scores[batch])]:
                _, end, scored = windows[row].tolist()
                raise DataError(
                    f"The model gives {names[owners[row]]} the log-likelihood {scores[row]} (tokens {end - scored} to {end} of it), "
                    "but a score must be finite. The weights may hold NaN or infinity: check the training run that wrote them."
                )
            advance(float(window_bytes[batch].sum()))
        return scores, greedy

    @torch.inference_mode()
    def _score_batch(self, pieces: Sequence[tuple[IntArray, int, int, int]]) -> Scores:
        """Sums over the scored tokens of each padded row of one forward pass."""
        longest = max(end - start for _, start, end, _ in pieces)
        inputs, mask = np.zeros((2, len(pieces), longest), dtype=np.int64)
        for row, (sequence, start, end, _) in enumerate(pieces):
            inputs[row, : end - start] = sequence[start:end]
            mask[row, : end - start] = 1
        rows = np.repeat(np.arange(len(pieces)), [scored for *_, scored in pieces])
        columns = np.concatenate([np.arange(end - start - scored, end - start) for _, start, end, scored in pieces])
        targets = np.concatenate([sequence[end - scored + 1 : end + 1] for sequence, _, end, scored in pieces])
        logits = self._forward(inputs, mask)
        scores, greedy = self._gather(logits, rows, columns, targets)
        totals, best = np.zeros(len(pieces)), np.ones(len(pieces), dtype=bool)
        np.add.at(totals, rows, scores)
        np.logical_and.at(best, rows, greedy)
        return totals, best

    def _forward(self, inputs: IntArray, mask: IntArray) -> torch.Tensor:
        tensors = {"input_ids": torch.from_numpy(inputs), "attention_mask": torch.from_numpy(mask)}
        try:
            logits = self._model(**{name: tensor.to(self.device) for name, tensor in tensors.items()}, use_cache=False).logits
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"No memory left on {self.device} for a batch of {inputs.shape[0]} windows of {inputs.shape[1]} tokens ({error}). "
                "Choose a smaller --batch-size or --context."
            ) from None
        assert isinstance(logits, torch.Tensor)
        return logits

    def _gather(self, logits: torch.Tensor, *places: IntArray) -> Scores:
        """Log-probability of each target token, and whether it is the most likely one."""
        rows, columns, targets = (torch.from_numpy(place).to(self.device) for place in places)
        scores, greedy = [], []
        positions = max(1, CHUNK_BYTES // (4 * self.vocab_size))
        for start in range(0, len(rows), positions):
            part = slice(start, start + positions)
            chosen = logits[rows[part], columns[part]].float()
            of_target = chosen.gather(1, targets[part, None])[:, 0]
            scores.append((of_target - chosen.logsumexp(-1)).double().cpu())
            greedy.append((of_target >= chosen.amax(-1)).cpu())
        return torch.cat(scores).numpy(), torch.cat(greedy).numpy()
