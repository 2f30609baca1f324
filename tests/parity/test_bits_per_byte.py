"""Bits per byte against a loop written out by hand: one forward pass per token, no batches, no windows, no vectors."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest

from evaluation.documents import Document
from evaluation.loading import load_model, open_folder
from evaluation.models import HuggingFaceModel, Request
from evaluation.suites import Settings
from evaluation.suites.bits_per_byte import SUITE, DocumentScores
from tests.support.tiny_language_models import TEXTS, save_tiny_qwen2

CONTEXT = 24
DOCUMENTS = [Document(f"d{number}", text, len(text.encode())) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_qwen2(tmp_path_factory.mktemp("models") / "model", context=CONTEXT)


@pytest.fixture(scope="module")
def model(folder: Path) -> HuggingFaceModel:
    return load(folder)


def load(folder: Path, **options: Any) -> HuggingFaceModel:
    found: HuggingFaceModel = load_model(open_folder(folder), "cpu", **options)
    return found


def log_probability(network: Any, inputs: list[int], target: int) -> float:
    """Of one token after `inputs`, by softmax written out in Python floats."""
    import torch

    with torch.no_grad():
        logits = network(torch.tensor([inputs])).logits[0, -1].double().tolist()
    highest = max(logits)
    return float(logits[target] - highest - math.log(sum(math.exp(logit - highest) for logit in logits)))


@functools.cache
def naive_model(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()


@functools.cache
def naive_bits(folder: Path, text: str, stride: int, prefix: str, score_end: bool = False) -> float:
    """-log2 p(text): token t sees everything from the start of the window that first reaches it, one pass per token."""
    tokenizer, network = naive_model(folder)
    full = [tokenizer.convert_tokens_to_ids(prefix), *tokenizer(text)["input_ids"], *([tokenizer.eos_token_id] if score_end else [])]
    total = 0.0
    for token in range(1, len(full)):
        window_end = CONTEXT
        while window_end < token:
            window_end = min(window_end + stride, len(full) - 1)
        start = max(0, window_end - CONTEXT)
        total += log_probability(network, full[start:token], full[token])
    return -total / math.log(2)


@pytest.mark.parametrize("stride", [CONTEXT, 10, 1])
def test_bits_equal_the_naive_loop_for_documents_shorter_and_longer_than_the_context(
    folder: Path, model: HuggingFaceModel, stride: int
) -> None:
    scores = model.rolling_log_likelihood(DOCUMENTS, stride, False, lambda _: None)
    assert min(score.tokens for score in scores) < CONTEXT < max(score.tokens for score in scores)
    for document, score in zip(DOCUMENTS, scores, strict=True):
        expected = naive_bits(folder, document.text, stride, "<|endoftext|>")
        assert -score.log_likelihood / math.log(2) == pytest.approx(expected, rel=1e-6)


def test_a_bos_token_is_the_prefix_where_there_is_one_and_the_end_of_document_is_scored_on_request(tmp_path: Path) -> None:
    folder = save_tiny_qwen2(tmp_path / "model", context=CONTEXT, with_bos=True)
    scores = load(folder).rolling_log_likelihood(DOCUMENTS[:2], CONTEXT, True, lambda _: None)
    for document, score in zip(DOCUMENTS[:2], scores, strict=True):
        expected = naive_bits(folder, document.text, CONTEXT, "<|bos|>", score_end=True)
        assert -score.log_likelihood / math.log(2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_batch_size_and_order_of_documents_do_not_change_the_scores(folder: Path, model: HuggingFaceModel, batch_size: int) -> None:
    forward = model.rolling_log_likelihood(DOCUMENTS, 10, False, lambda _: None)
    backward = load(folder, batch_size=batch_size).rolling_log_likelihood(DOCUMENTS[::-1], 10, False, lambda _: None)[::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-6)
        assert (one.tokens, one.exact) == (other.tokens, other.exact)


def test_the_metrics_follow_their_definitions(folder: Path, model: HuggingFaceModel) -> None:
    described = [(document.id, document.bytes, None) for document in DOCUMENTS]
    scores = model.rolling_log_likelihood(DOCUMENTS, CONTEXT, False, lambda _: None)
    summary = SUITE.summarise([DocumentScores(described, scores, model.vocab_size)], Settings(resamples=50))
    bits = sum(naive_bits(folder, document.text, CONTEXT, "<|endoftext|>") for document in DOCUMENTS)
    size, tokens = sum(document.bytes for document in DOCUMENTS), sum(score.tokens for score in scores)
    values = {name: interval.value for name, interval in summary.metrics.items()}
    assert values == pytest.approx(
        {
            "bits_per_byte": bits / size,
            "byte_perplexity": 2 ** (bits / size),
            "token_perplexity": 2 ** (bits / tokens),
            "bytes_per_token": size / tokens,
            "tokens": tokens,
        },
        rel=1e-6,
    )
    assert summary.references["uniform"]["bits_per_byte"].value == pytest.approx(tokens * math.log2(model.vocab_size) / size)


def test_a_model_with_equal_logits_has_exactly_the_uniform_bits_per_byte(tmp_path: Path) -> None:
    folder = save_tiny_qwen2(tmp_path / "model", context=CONTEXT, spread=0.0)
    model = load(folder)
    scores = model.rolling_log_likelihood(DOCUMENTS, CONTEXT, False, lambda _: None)
    described = [(document.id, document.bytes, None) for document in DOCUMENTS]
    summary = SUITE.summarise([DocumentScores(described, scores, model.vocab_size)], Settings(resamples=50))
    assert summary.metrics["bits_per_byte"].value == pytest.approx(summary.references["uniform"]["bits_per_byte"].value, rel=1e-6)


def test_continuations_are_scored_as_the_naive_loop_scores_them_and_greedy_is_seen(folder: Path, model: HuggingFaceModel) -> None:
    tokenizer, network = naive_model(folder)
    requests = [Request("a", "The quick brown", " fox"), Request("b", "The lazy ", "dog jumps"), Request("c", "", "Sa simula")]
    scores = model.log_likelihood(requests, lambda _: None)
    for request, score in zip(requests, scores, strict=True):
        before = tokenizer(request.context.rstrip())["input_ids"] or [tokenizer.eos_token_id]
        after = tokenizer(request.context + request.continuation)["input_ids"][len(before) if request.context else 0 :]
        expected = sum(log_probability(network, before + after[:place], token) for place, token in enumerate(after))
        assert score.log_likelihood == pytest.approx(expected, rel=1e-6)
        assert (score.tokens, score.bytes) == (len(after), len(request.continuation.encode()))
        assert not score.is_greedy
    best = network(tokenizer("The quick", return_tensors="pt")["input_ids"]).logits[0, -1].argmax()
    (greedy,) = model.log_likelihood([Request("d", "The quick", tokenizer.decode(best))], lambda _: None)
    assert greedy.tokens == 1 and greedy.is_greedy


def test_a_special_token_spelled_in_the_text_is_scored_as_text(model: HuggingFaceModel) -> None:
    (with_special,) = model.encode(["a<|endoftext|>b"])
    assert len(with_special) > 3 and model.prefix_token not in with_special
    (score,) = model.rolling_log_likelihood([Document("d", "a<|endoftext|>b", 15)], CONTEXT, False, lambda _: None)
    assert (score.tokens, score.exact) == (len(with_special), True)
