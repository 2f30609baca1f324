"""What a suite may ask of a language model, and a Hugging Face folder that answers.

A model is a tokenizer and three questions (how likely is this continuation, how likely is this document, what comes next), which
is the idea of `lm_eval.api.model.LM`. Scores are natural logarithms from fp32 logits, summed in fp64. Checking and reading the
folder is the business of `evaluation.loading`, cutting and batching that of `evaluation.windows`, writing that of
`evaluation.generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evaluation.documents import Document
from evaluation.forward import Advance, Network
from evaluation.generation import Generated, Prompt, Sampling, TextGenerator
from evaluation.rows import Row, RowScorer, common_tokens, shared_rows
from evaluation.windows import IntArray, rolling_windows
from nemo_ext.common.errors import DataError


@dataclass(frozen=True)
class Request:
    """How likely is `continuation` after `context`? `id` is for messages."""

    id: str
    context: str
    continuation: str


@dataclass(frozen=True)
class Question:
    """How likely is each of `options` after `context`, with `after` behind it? All are scored from the same token on, to be compared.

    A causal model scores the option and `after`, a masked model the option in the sight of `after`.
    """

    id: str
    context: str
    options: tuple[str, ...]
    after: str = ""


@dataclass(frozen=True)
class ContinuationScore:
    """Log-likelihood in nats over the continuation's tokens; `rank`: 1 + the most tokens that were likelier than one of them.

    Ranks are counted on request only; without it, 2 stands for every rank but the first.
    """

    log_likelihood: float
    tokens: int
    bytes: int
    rank: int
    unknown_tokens: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether the model would have written it: at no place was another token more likely."""
        return self.rank == 1


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

    def option_scores(self, questions: Sequence[Question], advance: Advance, ranked: bool = False) -> list[list[ContinuationScore]]:
        """Scores of each question's options; `ranked`: with their ranks."""
        ...

    def rolling_log_likelihood(
        self, documents: Sequence[Document], stride: int, score_end_of_document: bool, advance: Advance
    ) -> list[DocumentScore]:
        """Scores of whole documents, each token once, in windows where they are longer than the context."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance) -> list[list[Generated]]:
        """Per prompt, the samples of what the model writes after it."""
        ...


class HuggingFaceModel:
    """A loaded causal model and its tokenizer behind `LanguageModel`.

    The first token of a document is conditioned on the prefix token: BOS, or EOS where the tokenizer has no BOS (as in
    lm-evaluation-harness, `HFLM.prefix_token_id`). Before contexts and prompts BOS stands where the tokenizer itself puts it
    before a text, as models of that kind (Llama, Gemma) are useless without it. No other special tokens are added.
    """

    def __init__(self, model: Any, tokenizer: Any, context: int, batch_size: int | None = None) -> None:
        self._model = model
        self.network = Network(model)
        self._tokenizer = tokenizer
        self.context = context
        self.vocab_size = self.network.vocab_size
        self.device = self.network.device
        self._max_rows = batch_size or 1 << 30
        self._scorer = RowScorer(self.network, self._max_rows)
        self.prefix_token = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if self.prefix_token is None:
            raise DataError(
                f"The tokenizer in {tokenizer.name_or_path} defines neither a BOS nor an EOS token to condition the first token on."
            )
        self._begins_with_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]

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
        if not texts:  # which tokenizers choke on
            return []
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
        end = [self._end_token()] if score_end_of_document else []
        sequences = [np.concatenate([[self.prefix_token], ids, end]).astype(np.int64) for ids in encoded]
        windows = [rolling_windows(len(sequence) - 1, self.context, stride) for sequence in sequences]
        owners = np.repeat(np.arange(len(documents)), [len(rows) for rows in windows])
        names = [f"document {document.id!r}" for document in documents]
        sizes = np.array([document.bytes for document in documents])
        totals = self._score_windows(sequences, owners, np.concatenate(windows or [np.empty((0, 3), np.int64)]), names, sizes, advance)
        return [
            DocumentScore(float(total), len(ids) + len(end), count_token(ids, self._tokenizer.unk_token_id), same)
            for total, ids, same in zip(totals, encoded, exact, strict=True)
        ]

    def log_likelihood(self, requests: Sequence[Request], advance: Advance) -> list[ContinuationScore]:
        """Scores of continuations, see `LanguageModel`. Raises DataError for one that is empty or does not fit the context."""
        questions = [Question(request.id, request.context, (request.continuation,)) for request in requests]
        return [score for (score,) in self.option_scores(questions, advance)]

    def option_scores(self, questions: Sequence[Question], advance: Advance, ranked: bool = False) -> list[list[ContinuationScore]]:
        """Scores of options, see `LanguageModel`. Raises DataError for one that is empty or does not fit the context.

        Context and option are encoded as one text, because that is how the model saw such text in training, and what is scored are
        the tokens after those that the context alone begins with (lm-evaluation-harness, `TemplateLM._encode_pair`); white space at
        the end of a context thus belongs to the option. Where an option's first letters share a token with the context's last, all
        options of the question are scored from that token on. Options that follow the same tokens share a row of the forward pass.
        """
        contexts = self.encode([question.context.rstrip() for question in questions])
        wholes = iter(self.encode([question.context + option + question.after for question in questions for option in question.options]))
        sequences = [
            self._sequences(question, context, [next(wholes) for _ in question.options])
            for question, context in zip(questions, contexts, strict=True)
        ]
        sizes = [len((option + question.after).encode()) for question in questions for option in question.options]
        return self._score_options([question.id for question in questions], sequences, sizes, advance, ranked)

    def reply_scores(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]], advance: Advance) -> list[list[ContinuationScore]]:
        """Scores of each prompt's replies as what the model would write after it, the end token included: see `generate`.

        Raises DataError for a reply that is empty or does not fit the context.
        """
        generator, end = self._generator(), self._end_token()
        encoded = iter(self.encode([reply for options in replies for reply in options]))
        sequences = []
        for prompt, ids, options in zip(prompts, generator.encode_prompts(prompts), replies, strict=True):
            written = [np.append(next(encoded), end) for _ in options]
            longest = max(map(len, written))
            if not all(options) or len(ids) + longest - 1 > self.context:
                raise DataError(
                    f"Prompt {prompt.id!r} has {len(ids)} tokens, and replies of up to {longest} follow; expected replies with text, and "
                    f"at most {self.context} tokens in all (the context). Shorten the prompt or raise --context."
                )
            sequences.append(([np.concatenate([ids, reply]).astype(np.int64) for reply in written], list(map(len, written))))
        sizes = [len(reply.encode()) for options in replies for reply in options]
        return self._score_options([prompt.id for prompt in prompts], sequences, sizes, advance)

    def _score_options(
        self,
        names: Sequence[str],
        options: Sequence[tuple[list[IntArray], list[int]]],
        sizes: Sequence[int],
        advance: Advance,
        ranked: bool = False,
    ) -> list[list[ContinuationScore]]:
        """Scores of the sequences of each name, of which so many tokens at the end are scored and have so many bytes."""
        rows: list[Row] = []
        tokens: list[int] = []
        unknown: list[int] = []
        for sequences, scored in options:
            rows += shared_rows(sequences, scored, len(tokens))
            tokens += scored
            unknown += [count_token(ids[-count:], self._tokenizer.unk_token_id) for ids, count in zip(sequences, scored, strict=True)]
        owners = [f"request {name!r}" for name, (sequences, _) in zip(names, options, strict=True) for _ in sequences]
        lengths = np.array([len(row.inputs) for row in rows], dtype=np.int64)
        token_bytes = np.array(sizes) / np.array(tokens)
        totals, ranks = self._scorer.score(lengths, lambda number: rows[number], owners, token_bytes, advance, ranked)
        results = iter(zip(totals.tolist(), tokens, sizes, ranks.tolist(), unknown, strict=True))
        return [[ContinuationScore(*next(results)) for _ in sequences] for sequences, _ in options]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance) -> list[list[Generated]]:
        """Samples of what the model writes after each prompt, see `evaluation.generation`."""
        return self._generator().generate(prompts, sampling, advance)

    def _generator(self) -> TextGenerator:
        return TextGenerator(self.network, self._tokenizer, self.context, self._max_rows, self._encode_prompts)

    def _encode_prompts(self, texts: Sequence[str]) -> list[IntArray]:
        """As contexts are encoded: with BOS where the tokenizer puts it, or the prefix token where there is nothing else."""
        encoded = self.encode(texts)
        return [self._with_prefix(ids) if self._begins_with_bos or not len(ids) else ids for ids in encoded]

    def _with_prefix(self, ids: IntArray) -> IntArray:
        return np.concatenate([[self.prefix_token], ids]).astype(np.int64)

    def _sequences(self, question: Question, context: IntArray, wholes: Sequence[IntArray]) -> tuple[list[IntArray], list[int]]:
        """Tokens of context and option, and how many of them at the end are scored."""
        shared = min((common_tokens(context, whole) for whole in wholes), default=0)
        sequences = [self._with_prefix(whole) if self._begins_with_bos or not shared else whole for whole in wholes]
        for option, whole, sequence in zip(question.options, wholes, sequences, strict=True):
            if len(whole) <= shared or len(sequence) - 1 > self.context or not option:
                raise DataError(
                    f"Request {question.id!r} has {len(whole) - shared} tokens to score after {shared} tokens of context "
                    f"({option[:40]!r}); expected at least 1, and at most {self.context} in all. "
                    "Shorten the item or choose a larger --context."
                )
        return sequences, [len(whole) - shared for whole in wholes]

    def _end_token(self) -> int:
        if self._tokenizer.eos_token_id is None:
            raise DataError(f"The tokenizer in {self._tokenizer.name_or_path} has no EOS token, the end of a text that is to be scored.")
        return int(self._tokenizer.eos_token_id)

    def _decode(self, encoded: Sequence[IntArray]) -> list[str]:
        return list(
            self._tokenizer.batch_decode([ids.tolist() for ids in encoded], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def _score_windows(
        self, sequences: Sequence[IntArray], owners: IntArray, windows: IntArray, names: Sequence[str], sizes: IntArray, advance: Advance
    ) -> npt.NDArray[np.float64]:
        """Log-likelihood of each of `sequences` over its windows (start, end, scored)."""
        tokens = np.bincount(owners, weights=windows[:, 2], minlength=len(sequences))

        def row(number: int) -> Row:
            sequence, (start, end, scored) = sequences[owners[number]], windows[number].tolist()
            return Row(sequence[start:end], ((int(owners[number]), end - start - scored, sequence[end - scored + 1 : end + 1]),))

        return self._scorer.score(windows[:, 1] - windows[:, 0], row, names, sizes / np.maximum(tokens, 1), advance)[0]


def count_token(ids: IntArray, token: int | None) -> int:
    """How often a special token stands in `ids`; 0 where the tokenizer has no such token."""
    return 0 if token is None else int((ids == token).sum())
