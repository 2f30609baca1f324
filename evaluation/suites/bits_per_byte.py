"""Bits per byte: how many bits a model needs to transmit a text, per UTF-8 byte of it.

    bits_per_byte = sum over documents of -log2 p(document) / sum over documents of UTF-8 bytes

This is the definition of lm-evaluation-harness (`bits_per_byte` in lm_eval/api/metrics.py, weighted by bytes over the
documents) and of the Pile (Gao et al. 2020, arXiv:2101.00027, section 3.1). Unlike token loss it does not depend on how a
tokenizer cuts the text, so models with different tokenizers or tokenizations can be compared; lower is better.

- p(document): product over its tokens. The first token is conditioned on the prefix token (BOS, else EOS).
- The end-of-document token is not scored by default: it carries no bytes of the text, and not every model has one.
- Longer than the context: rolling windows, each token scored exactly once (`evaluation.windows`). The default stride is the
  context, as in the harness; a smaller stride costs more and gives every token at least `context - stride` tokens before it.
- Text is encoded with each model's own tokenizer. Ids stored in a dataset are decoded first, never scored as they are.
  A special token spelled out in the text is scored as the text it is (the harness scores it as the special token).
- `uniform` is a model that gives every token of the vocabulary the same probability: tokens * log2(vocabulary) / bytes.
- Intervals: percentile bootstrap over documents; of two models on the same documents, the paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from evaluation.documents import Document, Documents, open_documents
from evaluation.loading import ModelFolder, choose_context
from evaluation.models import Advance, DocumentScore, LanguageModel
from evaluation.statistics import Bootstrap, FloatArray, Interval
from evaluation.suites import Settings, Summary
from evaluation.suites.base import SuiteDefaults
from evaluation.windows import rolling_windows
from nemo_ext.common.errors import DataError

BYTES_AT_ONCE = 4 << 20  # text encoded and sorted by length together; bounds the memory for ids
NO_DOMAIN = "(none)"
FEW_DOCUMENTS = 20  # with fewer, a percentile bootstrap is too narrow
BITS, TOKENS, BASELINE_BITS = 0, 1, 2  # columns of the bootstrap; bytes come last


@dataclass(frozen=True)
class DocumentScores:
    """Scores of all documents by one model, in the order of the documents."""

    documents: list[tuple[str, int, str | None]]  # id, bytes, domain
    scores: list[DocumentScore]
    vocab_size: int

    @property
    def bits(self) -> FloatArray:
        """-log2 p of each document."""
        return np.array([-score.log_likelihood for score in self.scores]) / math.log(2)

    @property
    def tokens(self) -> FloatArray:
        """Scored tokens of each document."""
        return np.array([score.tokens for score in self.scores], dtype=np.float64)

    @property
    def bytes(self) -> FloatArray:
        """UTF-8 bytes of each document."""
        return np.array([size for _, size, _ in self.documents], dtype=np.float64)


class BitsPerByte(SuiteDefaults):
    """The suite, see the module's text for the definition."""

    name = "bits_per_byte"
    version = 1
    primary_metric = "bits_per_byte"
    lower_is_better = True
    unused = MappingProxyType({})

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse strides that a model's context does not allow."""
        super().check(settings, folders)
        for folder in folders:
            context = choose_context(folder, settings.context_tokens)
            rolling_windows(0, context, settings.stride_tokens or context)

    def describe(self, model: Any, settings: Settings) -> dict[str, Any]:
        """The stride counts, too."""
        return super().describe(model, settings) | {"stride_tokens": settings.stride_tokens or model.context}

    def read(self, path: Path, settings: Settings) -> Documents:
        """Documents of files or of a dataset's split."""
        return open_documents(path, settings.split, settings.text_field)

    def score(self, model: LanguageModel, items: Documents, settings: Settings, advance: Advance) -> DocumentScores:
        """Scores of all documents, in pieces of BYTES_AT_ONCE."""
        described: list[tuple[str, int, str | None]] = []
        scores: list[DocumentScore] = []
        stride = settings.stride_tokens or model.context
        for piece in _pieces(items):
            scores += model.rolling_log_likelihood(piece, stride, settings.score_end_of_document, advance)
            described += [(document.id, document.bytes, document.domain) for document in piece]
        if sum(size for _, size, _ in described) != items.bytes:
            raise DataError(f"{items.path} changed while it was being scored. Run the evaluation again on data at rest.")
        return DocumentScores(described, scores, model.vocab_size)

    def summarise(self, scores: Sequence[DocumentScores], settings: Settings) -> Summary:
        """Metrics, and against a second model the paired difference (negative: the model needs fewer bits than the baseline)."""
        model, *others = scores
        baseline = others[0] if others else None
        columns = [model.bits, model.tokens, *([baseline.bits] if baseline else []), model.bytes]
        bootstrap = Bootstrap(np.stack(columns, axis=1), settings.resamples, settings.confidence, settings.seed)
        return Summary(
            metrics=_metrics(bootstrap, BITS, TOKENS),
            references=_references(model),
            baseline_metrics=_baseline_metrics(baseline, settings) if baseline else None,
            baseline_references=_references(baseline) if baseline else None,
            comparison=_comparison(bootstrap) if baseline else None,
            domains=_domains(model, settings),
            rows=_rows(model, baseline),
            warnings=_warnings(scores),
        )


SUITE = BitsPerByte()


def _pieces(documents: Documents) -> Iterator[list[Document]]:
    piece: list[Document] = []
    size = 0
    for document in documents:
        piece.append(document)
        size += document.bytes
        if size >= BYTES_AT_ONCE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _perplexity(bits: float) -> float:
    """2 ** bits; infinity, which results.json writes as null, where that has no floating-point value."""
    return float(np.exp2(bits)) if bits < 1024 else math.inf


def _metrics(bootstrap: Bootstrap, bits: int, tokens: int) -> dict[str, Interval]:
    per_byte = bootstrap.interval(lambda sums: sums[..., bits] / sums[..., -1])
    per_token = bootstrap.interval(lambda sums: sums[..., bits] / sums[..., tokens])
    return {
        "bits_per_byte": per_byte,
        "byte_perplexity": per_byte.map(_perplexity),
        "token_perplexity": per_token.map(_perplexity),
        "bytes_per_token": bootstrap.interval(lambda sums: sums[..., -1] / sums[..., tokens]),
        "tokens": Interval(float(bootstrap.total[tokens])),
    }


def _references(scores: DocumentScores) -> dict[str, dict[str, Interval]]:
    """The uniform distribution over the model's vocabulary, on the model's tokens."""
    return {"uniform": {"bits_per_byte": Interval(math.log2(scores.vocab_size) * scores.tokens.sum() / scores.bytes.sum())}}


def _baseline_metrics(baseline: DocumentScores, settings: Settings) -> dict[str, Interval]:
    columns = np.stack([baseline.bits, baseline.tokens, baseline.bytes], axis=1)
    return _metrics(Bootstrap(columns, settings.resamples, settings.confidence, settings.seed), BITS, TOKENS)


def _comparison(bootstrap: Bootstrap) -> dict[str, Interval]:
    return {
        "bits_per_byte": bootstrap.interval(lambda sums: (sums[..., BITS] - sums[..., BASELINE_BITS]) / sums[..., -1]),
        "relative_bits": bootstrap.interval(lambda sums: sums[..., BITS] / sums[..., BASELINE_BITS] - 1),
    }


def _domains(scores: DocumentScores, settings: Settings) -> dict[str, dict[str, Any]]:
    names = [domain for _, _, domain in scores.documents]
    if not any(names):
        return {}
    labels = np.array([name or NO_DOMAIN for name in names])
    columns = np.stack([scores.bits, scores.tokens, scores.bytes], axis=1)
    table = {}
    for label in sorted(set(labels.tolist())):
        part = columns[labels == label]
        bootstrap = Bootstrap(part, settings.resamples, settings.confidence, settings.seed)
        value = bootstrap.interval(lambda sums: sums[..., BITS] / sums[..., -1])
        table[label] = {"documents": len(part), "bytes": int(part[:, -1].sum()), "bits_per_byte": value.as_dict()}
    return table


def _rows(model: DocumentScores, baseline: DocumentScores | None) -> list[dict[str, Any]]:
    rows = []
    for number, ((identity, size, domain), score, bits) in enumerate(zip(model.documents, model.scores, model.bits.tolist(), strict=True)):
        row = {"id": identity, "bytes": size, "tokens": score.tokens, "bits": bits, "exact": score.exact}
        if domain is not None:
            row["domain"] = domain
        if baseline:
            row["baseline_tokens"] = baseline.scores[number].tokens
            row["baseline_bits"] = float(-baseline.scores[number].log_likelihood / math.log(2))
        rows.append(row)
    return rows


def _warnings(scores: Sequence[DocumentScores]) -> list[str]:
    documents = len(scores[0].scores)
    found = []
    if documents < FEW_DOCUMENTS:
        found.append(f"The intervals rest on {documents} documents; with fewer than {FEW_DOCUMENTS} they are too narrow.")
    for label, one in zip(("model", "baseline"), scores, strict=False):
        inexact = sum(not score.exact for score in one.scores)
        unknown = sum(score.unknown_tokens for score in one.scores)
        if inexact:
            found.append(f"The {label}'s tokenizer does not give back the exact text of {inexact} of {documents} documents.")
        if unknown:
            found.append(f"The {label}'s tokenizer wrote {unknown} unknown tokens, which makes text it cannot express look cheap.")
    return found
