"""Masked language models behind the question "how likely is this option": pseudo-log-likelihood.

A masked model gives no probability of a text, but one of each token in the sight of the others, and their sum ranks texts
(Salazar et al. 2020, "Masked language model scoring"). `original` masks one token at a time. `within_word_l2r` also masks the tokens
of the same word that follow it (Kauf & Ivanova 2023, "A better way to do masked language model scoring"), without which a word of
several tokens looks too likely, because each of its tokens gives away the others; this is the default, as in minicons.
Pseudo-log-likelihoods are compared with one another, never with the log-likelihoods of a causal model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from evaluation.forward import Advance, Network
from evaluation.loading import ModelFolder, choose_context, choose_device, load_model, load_pretrained
from evaluation.models import ContinuationScore, Question, count_token
from evaluation.windows import IntArray, plan_batches
from nemo_ext.common.errors import DataError

PseudoLikelihood = Literal["within_word_l2r", "original"]
MASKED_ENDINGS = ("ForMaskedLM", "ForPreTraining")  # BertForPreTraining has the same head for masked tokens
# Heads that published checkpoints (bert-base-uncased, roberta-base) hold beside it, and that no prediction of a masked token reads.
OTHER_HEADS = (".pooler.", "cls.seq_relationship.")


@dataclass(frozen=True)
class _Text:
    """Tokens `[tokens]` in the tokenizer's template, the word of each (-1: not of the text), and the places that are scored."""

    ids: IntArray
    words: IntArray
    places: IntArray


class MaskedModel:
    """A loaded masked model and its tokenizer; answers `option_scores` as `evaluation.models.LanguageModel` does."""

    def __init__(self, model: Any, tokenizer: Any, context: int, batch_size: int | None, method: PseudoLikelihood) -> None:
        self._model, self._tokenizer, self._method = model, tokenizer, method
        self._network = Network(model)
        self.context = context
        self.vocab_size = self._network.vocab_size
        self.device = self._network.device
        self._max_rows = batch_size or 1 << 30
        if tokenizer.mask_token_id is None or not tokenizer.is_fast:
            raise DataError(
                f"The tokenizer in {tokenizer.name_or_path} has no mask token, or no tokenizer.json that tells words apart. "
                "Expected the tokenizer that the masked model was trained with."
            )

    def as_dict(self) -> dict[str, Any]:
        """What shapes the scores beyond the files of the model, for results.json."""
        return {
            "parameters": self._model.num_parameters(),
            "vocab_size": self.vocab_size,
            "context_tokens": self.context,
            "pseudo_log_likelihood": self._method,
        }

    def option_scores(self, questions: Sequence[Question], advance: Advance, ranked: bool = False) -> list[list[ContinuationScore]]:
        """Pseudo-log-likelihood of each option between `context` and `after`. Raises DataError as `HuggingFaceModel` does.

        ranked: options are answers that the model is to find token by token, so it never sees those after the one that it must give.
        """
        texts, names, sizes = [], [], []
        for question in questions:
            texts += self._texts(question)
            names += [f"request {question.id!r}"] * len(question.options)
            sizes += [len(option.encode()) for option in question.options]
        rows = [(owner, place) for owner, text in enumerate(texts) for place in text.places.tolist()]
        token_bytes = np.array(sizes) / np.array([len(text.places) for text in texts])
        totals, ranks = np.zeros(len(texts)), np.ones(len(texts), dtype=np.int64)
        lengths = np.array([len(texts[owner].ids) for owner, _ in rows], dtype=np.int64)
        for batch in plan_batches(lengths, self._max_rows, self._network.max_positions):
            chosen = [rows[number] for number in batch.tolist()]
            owners = np.array([owner for owner, _ in chosen])
            scores, found = self._score_batch([texts[owner] for owner in owners], np.array([place for _, place in chosen]), ranked)
            np.add.at(totals, owners, scores)
            np.maximum.at(ranks, owners, found)
            for owner in owners[~np.isfinite(scores)][:1]:
                raise DataError(
                    f"The model gives {names[owner]} the pseudo-log-likelihood {totals[owner]}, but a score must be finite. "
                    "The weights may hold NaN or infinity: check the training run that wrote them."
                )
            advance(float(token_bytes[owners].sum()))
        counts = [len(text.places) for text in texts]
        unknown = [count_token(text.ids[text.places], self._tokenizer.unk_token_id) for text in texts]
        results = iter(zip(totals.tolist(), counts, sizes, ranks.tolist(), unknown, strict=True))
        return [[ContinuationScore(*next(results)) for _ in question.options] for question in questions]

    def _texts(self, question: Question) -> list[_Text]:
        wholes = [question.context + option + question.after for option in question.options]
        encoded = self._tokenizer(wholes, split_special_tokens=True, truncation=False, return_offsets_mapping=True, verbose=False)
        start = len(question.context.rstrip())
        texts = []
        for number, option in enumerate(question.options):
            ids = np.asarray(encoded["input_ids"][number], dtype=np.int64)
            words = np.array([-1 if word is None else word for word in encoded.word_ids(number)])
            ends = np.array(encoded["offset_mapping"][number]).reshape(-1, 2)
            stop = len(question.context) + len(option)
            # Every token with a character of the option, so that all options of a question are scored as wholes.
            inside = (words >= 0) & (ends[:, 1] > start) & (ends[:, 0] < stop) & (ends[:, 1] > ends[:, 0])
            self._check(question, option, ids, inside)
            texts.append(_Text(ids, words, np.flatnonzero(inside)))
        return texts

    def _check(self, question: Question, option: str, ids: IntArray, inside: Any) -> None:
        if not inside.any() or len(ids) > self.context:
            raise DataError(
                f"Request {question.id!r} has {inside.sum()} tokens to score in {len(ids)} tokens ({option[:40]!r}); expected at least 1, "
                f"and at most {self.context} in all. Shorten the item or choose a larger --context."
            )
        if ids.max() >= self.vocab_size:
            raise DataError(
                f"The tokenizer gives token id {ids.max()} in request {question.id!r}, but the model has a vocabulary of "
                f"{self.vocab_size}. The tokenizer in this folder does not belong to the model."
            )

    @torch.inference_mode()
    def _score_batch(self, texts: Sequence[_Text], places: IntArray, ranked: bool) -> tuple[Any, IntArray]:
        """Log-probability and rank of the token at one place of each text, itself masked."""
        longest = max(len(text.ids) for text in texts)
        inputs, mask = np.zeros((2, len(texts), longest), dtype=np.int64)
        for row, (text, place) in enumerate(zip(texts, places.tolist(), strict=True)):
            length = len(text.ids)
            inputs[row, :length], mask[row, :length] = text.ids, 1
            hidden, later = np.arange(length) == place, np.arange(length) > place
            if self._method == "within_word_l2r":
                hidden |= later & (text.words == text.words[place])
            if ranked:
                hidden[text.places[text.places > place]] = True
            inputs[row, :length][hidden] = self._tokenizer.mask_token_id
        targets = np.array([text.ids[place] for text, place in zip(texts, places.tolist(), strict=True)])
        logits = self._network.forward(torch.from_numpy(inputs), torch.from_numpy(mask)).logits
        return self._network.gather(logits, np.arange(len(texts)), places, targets, ranked=ranked)


def is_masked(folder: ModelFolder) -> bool:
    """Whether the folder's architecture is a masked language model."""
    return any(name.endswith(MASKED_ENDINGS) for name in folder.config.get("architectures") or [])


def load_either(folder: ModelFolder, device: str, context: int | None, batch_size: int | None, method: PseudoLikelihood) -> Any:
    """`MaskedModel` for a folder with a masked language model, else `HuggingFaceModel`; in fp32, as `evaluation.loading` checks them."""
    if not is_masked(folder):
        return load_model(folder, device, context, batch_size)
    context = choose_context(folder, context)
    model, tokenizer = load_pretrained(folder, "AutoModelForMaskedLM", torch.device(choose_device(device)), OTHER_HEADS)
    # RoBERTa's config counts positions that no token may take; its tokenizer knows better.
    return MaskedModel(model, tokenizer, min(context, tokenizer.model_max_length), batch_size, method)
