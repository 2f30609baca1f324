"""Pseudo-log-likelihoods against a loop by hand, and the suites minimal_pairs and cloze on masked and causal models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.loading import open_folder
from evaluation.masked import MaskedModel, PseudoLikelihood, load_either
from evaluation.models import Question
from evaluation.run import evaluate
from evaluation.suites import Settings
from evaluation.suites.multiple_choice import SUITE as MULTIPLE_CHOICE
from nemo_ext.common.errors import ConfigError, ConversionError, DataError
from tests.support.encoder_tokenizers import bert_tokenizer, modernbert_tokenizer
from tests.support.tiny_language_models import change_weights, save_tiny_qwen2

CONTEXT = 64
QUESTIONS = [
    Question("start", "", ("Ang magbasa number 3", "tumupuno ay tumupuno")),
    Question("middle", "Ang pagsulat ", ("number", "magdahon"), " ay kasibol."),
    Question("end", "Ang pagsulat number 3 ay", (" magbunga",)),
]


def save_masked(folder: Path, kind: str, spread: float = 0.3) -> Path:
    """A tiny random BERT (WordPiece), the same with the heads of its pre-training, or ModernBERT (byte-level)."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, ModernBertConfig, ModernBertForMaskedLM

    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": spread}
    shape |= {"max_position_embeddings": CONTEXT}
    if kind != "modernbert":
        tokenizer, head = bert_tokenizer(folder), BertForMaskedLM if kind == "bert" else BertForPreTraining
        head(BertConfig(vocab_size=tokenizer.vocab_size, **shape)).save_pretrained(folder)
    else:
        tokenizer = modernbert_tokenizer(folder)
        ids = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
        config = ModernBertConfig(vocab_size=tokenizer.vocab_size, reference_compile=False, **shape, **ids)
        ModernBertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    causal = save_tiny_qwen2(folder / "causal", context=CONTEXT)
    return {"bert": save_masked(folder / "bert", "bert"), "modernbert": save_masked(folder / "modernbert", "modernbert"), "causal": causal}


def load(folder: Path, method: PseudoLikelihood = "within_word_l2r", batch_size: int | None = None) -> MaskedModel:
    found: MaskedModel = load_either(open_folder(folder), "cpu", None, batch_size, method)
    return found


def by_hand(folder: Path, question: Question, option: str, method: str, ranked: bool = False) -> tuple[float, int, int]:
    """Sum, tokens and worst rank, one forward pass per token of the option; `ranked`: with all later ones of the option hidden."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder).eval()
    encoded = tokenizer(question.context + option + question.after, return_offsets_mapping=True)
    ids, words = encoded["input_ids"], encoded.word_ids()
    begin, end = len(question.context.rstrip()), len(question.context + option)
    total, count, worst = 0.0, 0, 1
    spans = enumerate(encoded["offset_mapping"])
    inside = [place for place, (first, last) in spans if words[place] is not None and last > begin and first < end]
    for place in inside:
        same = [later for later in range(place, len(ids)) if method == "within_word_l2r" and words[later] == words[place]]
        masked = {place, *same, *(later for later in inside if ranked and later > place)}
        hidden = [tokenizer.mask_token_id if number in masked else token for number, token in enumerate(ids)]
        with torch.no_grad():
            chances = network(input_ids=torch.tensor([hidden])).logits[0, place].double().log_softmax(-1)
        total += float(chances[ids[place]])
        worst = max(worst, 1 + int((chances > chances[ids[place]]).sum()))
        count += 1
    return total, count, worst


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("method", ["within_word_l2r", "original"])
def test_pseudo_log_likelihoods_are_those_of_a_loop_by_hand(folders: dict[str, Path], kind: str, method: PseudoLikelihood) -> None:
    for batch_size, ranked in ((None, True), (2, False)):
        found = load(folders[kind], method, batch_size).option_scores(QUESTIONS, lambda _: None, ranked)
        for question, scores in zip(QUESTIONS, found, strict=True):
            for option, score in zip(question.options, scores, strict=True):
                total, count, worst = by_hand(folders[kind], question, option, method, ranked)
                assert score.log_likelihood == pytest.approx(total, rel=1e-5)
                assert (score.tokens, score.rank, score.bytes) == (count, worst if ranked else min(worst, 2), len(option.encode()))


def test_a_word_of_several_tokens_hides_its_later_tokens(folders: dict[str, Path]) -> None:
    one, other = (
        load(folders["bert"], method).option_scores(QUESTIONS[1:2], lambda _: None)[0] for method in ("within_word_l2r", "original")
    )
    assert one[1].tokens > 1 and one[1].log_likelihood != pytest.approx(other[1].log_likelihood, rel=1e-3)
    assert one[0].tokens == 1 and one[0].log_likelihood == pytest.approx(other[0].log_likelihood, rel=1e-5)
    assert [score.tokens for score in one] == [score.tokens for score in other]


@pytest.mark.parametrize("architecture", ["BertForPreTraining", "BertForMaskedLM"])  # the second is what bert-base-uncased says
def test_heads_that_no_masked_token_reads_are_left_out(architecture: str, tmp_path: Path) -> None:
    folder = save_masked(tmp_path / "model", "pre-training")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    ((score,),) = load(folder).option_scores(QUESTIONS[2:], lambda _: None)
    expected, _, _ = by_hand(folder, QUESTIONS[2], QUESTIONS[2].options[0], "within_word_l2r")
    assert score.log_likelihood == pytest.approx(expected, rel=1e-5)
    change_weights(folder, lambda weights: weights.update({"bert.more.weight": weights["bert.pooler.dense.bias"].clone()}))
    with pytest.raises(ConversionError, match=r"1 tensors would be left unused \(bert\.more\.weight\)"):
        load(folder)


def run(model: Path, items: Sequence[dict[str, Any]], out: Path, suite: str, **given: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    data = out.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    settings = Settings(resamples=50, options=given)
    results = evaluate(model, data, out, suite=suite, settings=settings, device="cpu")
    return results, [json.loads(line) for line in (out / "per_document.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["bert", "causal"])
def test_minimal_pairs_are_scored_as_whole_sentences_by_both_kinds_of_models(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    pairs = [("Ang magsulat ay puno.", "Ang sulat puno ay."), ("Ang puno ay puno.", "Ang puno puno ay."), ("ay magbasa", "ay magbasa 3")]
    items = [
        {"sentence_good": good, "sentence_bad": bad, "UID": f"u{number % 2}", "field": "syntax"} for number, (good, bad) in enumerate(pairs)
    ]
    results, rows = run(folders[kind], items, tmp_path / "out", "minimal_pairs")
    model = load(folders[kind])
    for (good, bad), row in zip(pairs, rows, strict=True):
        ((one,), (other,)) = model.option_scores([Question("a", "", (good,)), Question("b", "", (bad,))], lambda _: None)
        assert row["correct"] == float(one.log_likelihood > other.log_likelihood)
    assert set(results["domains"]) == {"u0", "u1"} and rows[0]["field"] == "syntax"
    assert results["references"] == {
        "uniform": {name: {"value": 0.5, "low": None, "high": None} for name in results["references"]["uniform"]}
    }
    assert ("pseudo_log_likelihood" in results["model"]) == (kind == "bert")
    strange, _ = run(folders[kind], [{"sentence_good": "猫 ay puno", "sentence_bad": "ay puno 猫"}], tmp_path / "strange", "minimal_pairs")
    assert any("unknown tokens in the answers of 1 of 1 items" in text for text in strange["warnings"]) == (kind == "bert")


@pytest.mark.parametrize("kind", ["bert", "causal"])
def test_cloze_chooses_among_options_and_ranks_answers_in_the_vocabulary(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    options = ["laro", "puno", "magtubo"]
    items: list[dict[str, Any]] = [
        {"id": "middle", "text": "Ang pagsulat ___ ay kasibol.", "answer": "puno", "options": options},
        {"id": "open", "text": "Ang pagsulat ___ ay kasibol.", "answer": "laro"},
        {"id": "end", "text": "Ang pagsulat", "answer": "laro"},
    ]
    results, rows = run(folders[kind], items, tmp_path / "out", "cloze")
    model = load(folders[kind])
    (scores,) = model.option_scores([Question("q", "Ang pagsulat ", tuple(options), " ay kasibol.")], lambda _: None)
    likelihoods = [score.log_likelihood for score in scores]
    assert rows[0]["log_likelihoods"] == pytest.approx(likelihoods, rel=1e-6)
    place = sorted(likelihoods, reverse=True).index(likelihoods[1]) + 1
    assert (rows[0]["rank"]["sum"], rows[0]["correct"]) == (place, float(place == 1))
    for row, after in zip(rows[1:], (" ay kasibol.", ""), strict=True):
        ((score,),) = model.option_scores(
            [Question("q", "Ang pagsulat", (" laro",), after if kind == "bert" else "")], lambda _: None, True
        )
        assert (row["rank"]["exact"], row["correct"]) == (score.rank, float(score.rank == 1))
    expected = (1 / place + sum(1 / row["rank"]["exact"] for row in rows[1:])) / 3
    assert results["metrics"]["reciprocal_rank"]["value"] == pytest.approx(expected)
    assert any("was not shown what follows the blank in 1 of 3" in text for text in results["warnings"]) == (kind == "causal")


def test_the_answer_that_a_causal_model_writes_has_rank_one(folders: dict[str, Path], tmp_path: Path) -> None:
    from evaluation.generation import Prompt, Sampling

    model: Any = load(folders["causal"])
    text = "Ang pagsulat"
    (written,) = model.generate([Prompt("p", text)], Sampling(2), lambda _: None)[0]
    _, rows = run(folders["causal"], [{"text": text + "___", "answer": written.text}], tmp_path / "out", "cloze")
    assert (rows[0]["rank"]["exact"], rows[0]["correct"], rows[0]["tokens"]) == (1, 1.0, 2)


def test_what_a_masked_model_cannot_score_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = load(folders["bert"])
    with pytest.raises(DataError, match=r"'long' has .* at most 64 in all"):
        model.option_scores([Question("long", "fox " * 100, ("dog",))], lambda _: None)
    with pytest.raises(ConfigError, match="free text, which a masked model cannot write"):
        run(folders["bert"], [{"prompt": "a", "answers": ["b"]}], tmp_path / "out", "multiple_choice")
    chosen = {"prompt": "a", "options": ["b", "c"], "gold": "b", "language": "en"}
    (tmp_path / "both.jsonl").write_text("".join(json.dumps(item) + "\n" for item in (chosen, {"prompt": "a", "answers": ["b"]})))
    with pytest.raises(ConfigError, match="free text"):  # before the options are scored, which may take hours
        MULTIPLE_CHOICE.score(object(), MULTIPLE_CHOICE.read(tmp_path / "both.jsonl", Settings()), Settings(), lambda _: None)
    with pytest.raises(DataError, match=r"jsonl:1 has a blank longer than '___'.*--set blank="):
        run(folders["bert"], [{"text": "A _____ b.", "answer": "b"}], tmp_path / "out", "cloze")
    with pytest.raises(DataError, match=r"jsonl:1 has 2 blanks"):
        run(folders["bert"], [{"text": "___ and ___", "answer": "b"}], tmp_path / "out", "cloze")
    folder = save_masked(tmp_path / "nan", "bert")
    change_weights(folder, lambda weights: [tensor.fill_(float("nan")) for tensor in weights.values()])
    with pytest.raises(DataError, match="pseudo-log-likelihood nan, but a score must be finite"):
        load(folder).option_scores(QUESTIONS, lambda _: None)
