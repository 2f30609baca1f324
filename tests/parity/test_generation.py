"""Generated text against transformers' `generate`, against the law of nucleus sampling, and against itself in other batches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.forward import LOGIT_BYTES, Network
from evaluation.generation import Prompt, Sampling, choose, draws
from evaluation.loading import load_model, open_folder
from evaluation.models import HuggingFaceModel, Question
from nemo_ext.common.errors import ConfigError, DataError
from tests.support.tiny_language_models import TEXTS, change_weights, save_tiny_gpt2, save_tiny_qwen2, train_tokenizer

CONTEXT, NEW_TOKENS = 96, 16
PROMPTS = [Prompt(f"p{number}", text[:length]) for number, (text, length) in enumerate(zip(TEXTS, (3, 20, 40, 9, 60), strict=True))]
DRAWN = Sampling(NEW_TOKENS, temperature=0.9, top_p=0.95, samples=3)
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rotary positions, learned positions, and layers that keep a few keys only."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "qwen2": save_tiny_qwen2(folder / "qwen2", context=CONTEXT),
        "gpt2": save_tiny_gpt2(folder / "gpt2", context=CONTEXT),
        "gemma3": save_tiny_gemma3(folder / "gemma3"),
    }


def save_tiny_gemma3(folder: Path) -> Path:
    """Layers with a window of 8 tokens, in turn with layers that see all."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = train_tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    window = {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": None}
    config = Gemma3TextConfig(**shape, **window, **tokens, max_position_embeddings=CONTEXT, initializer_range=0.3)
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> HuggingFaceModel:
    return load(folders["qwen2"])


def load(folder: Path, **options: Any) -> HuggingFaceModel:
    found: HuggingFaceModel = load_model(open_folder(folder), "cpu", **options)
    return found


def texts(model: HuggingFaceModel, prompts: list[Prompt], sampling: Sampling) -> list[list[str]]:
    return [[sample.text for sample in samples] for samples in model.generate(prompts, sampling, lambda _: None)]


def written_by_transformers(folder: Path, prompt: str, tokens: int = NEW_TOKENS) -> str:
    """Greedy, one prompt at a time, by transformers' own loop."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    inputs = tokenizer(prompt, return_tensors="pt")["input_ids"]
    ids = network.generate(inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    return str(tokenizer.decode(ids[0, inputs.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "gemma3"])
def test_greedy_text_of_a_padded_batch_is_that_of_transformers(folders: dict[str, Path], name: str) -> None:
    found = texts(load(folders[name]), PROMPTS, Sampling(NEW_TOKENS))
    expected = [[written_by_transformers(folders[name], prompt.text)] for prompt in PROMPTS]
    assert found == expected
    assert len({text for (text,) in found}) > 1


def test_bos_stands_before_prompts_and_contexts_where_the_tokenizer_puts_it(tmp_path: Path) -> None:
    import torch
    from tokenizers import processors
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny_qwen2(tmp_path / "model", context=CONTEXT, with_bos=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    without = texts(load(folder), PROMPTS, Sampling(NEW_TOKENS))
    template = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.save_pretrained(folder)
    model = load(folder)
    found = texts(model, PROMPTS, Sampling(NEW_TOKENS))
    assert found == [[written_by_transformers(folder, prompt.text)] for prompt in PROMPTS] != without
    ((score,),) = model.option_scores([Question("q", "Bayan ko,", (" lupang",))], lambda _: None)
    ids = AutoTokenizer.from_pretrained(folder)("Bayan ko, lupang", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        chances = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits[0].double().log_softmax(-1)
    first = ids.shape[1] - score.tokens
    expected = chances[torch.arange(first, ids.shape[1]) - 1, ids[0, first:]].sum()
    assert ids[0, 0] == tokenizer.bos_token_id and score.log_likelihood == pytest.approx(float(expected), rel=1e-5)


def test_samples_do_not_depend_on_batch_order_or_how_many_are_asked_for(folders: dict[str, Path], model: HuggingFaceModel) -> None:
    together = texts(model, PROMPTS, DRAWN)
    one_by_one = texts(load(folders["qwen2"], batch_size=1), PROMPTS[::-1], DRAWN)[::-1]
    fewer = texts(model, PROMPTS, Sampling(NEW_TOKENS, temperature=0.9, top_p=0.95, samples=1))
    assert together == one_by_one
    assert fewer == [samples[:1] for samples in together]
    assert all(len(set(samples)) > 1 for samples in together)
    assert texts(model, PROMPTS, Sampling(NEW_TOKENS, temperature=0.9, top_p=0.95, samples=3, seed=5)) != together


def test_the_end_token_and_stop_strings_end_a_text_and_are_not_part_of_it(folders: dict[str, Path], model: HuggingFaceModel) -> None:
    (whole,) = model.generate(PROMPTS[1:2], Sampling(NEW_TOKENS), lambda _: None)[0]
    assert (whole.tokens, whole.finished) == (NEW_TOKENS, False)
    stop = whole.text[4:6]
    (stopped,) = model.generate(PROMPTS[1:2], Sampling(NEW_TOKENS, stop=("never written", stop)), lambda _: None)[0]
    assert stopped.text == whole.text[: whole.text.index(stop)] and stopped.finished and stopped.tokens < NEW_TOKENS
    many = [
        sample
        for samples in model.generate(PROMPTS, Sampling(NEW_TOKENS, temperature=4.0, samples=60), lambda _: None)
        for sample in samples
    ]
    ended = [sample for sample in many if sample.finished]
    assert ended and all("endoftext" not in sample.text for sample in ended)
    assert all(sample.tokens == NEW_TOKENS for sample in many if not sample.finished)


def test_a_chat_goes_through_the_template_of_the_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["qwen2"], folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    chat = texts(load(folder), [Prompt("c", "Sa simula", system="Sagot lang.", chat=True)], Sampling(8))
    plain = "<|system|>Sagot lang.<|endoftext|><|user|>Sa simula<|endoftext|><|assistant|>"
    assert chat == [[written_by_transformers(folder, plain, 8)]]


def test_drawing_from_the_nucleus_has_its_law() -> None:
    import torch

    uniforms = (np.arange(10_000) + 0.5) / 10_000
    logits = torch.tensor([0.5, 0.2, 0.25, 0.05]).log().expand(len(uniforms), 4)

    def shares(**settings: float) -> list[float]:
        tokens = choose(logits, torch.from_numpy(uniforms), Sampling(**settings))  # type: ignore[arg-type]
        return [share / len(uniforms) for share in np.bincount(tokens, minlength=4).tolist()]

    assert shares(temperature=1.0) == pytest.approx([0.5, 0.2, 0.25, 0.05], abs=1e-4)
    assert shares(temperature=1.0, top_p=0.7) == pytest.approx([2 / 3, 0, 1 / 3, 0], abs=1e-4)  # 0.5 alone does not reach 0.7
    assert shares(temperature=1.0, top_p=0.01) == [1, 0, 0, 0]
    squares = [0.25, 0.04, 0.0625, 0.0025]
    assert shares(temperature=0.5) == pytest.approx([part / sum(squares) for part in squares], abs=1e-4)
    assert shares(temperature=0.0) == [1, 0, 0, 0]


def test_draws_belong_to_seed_prompt_and_sample() -> None:
    base = draws("p", DRAWN)
    assert np.array_equal(draws("p", Sampling(NEW_TOKENS + 5, temperature=1.0, samples=5))[:3, :NEW_TOKENS], base)
    rows = [*base, *draws("q", DRAWN), *draws("p", Sampling(NEW_TOKENS, temperature=1.0, seed=2))]
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("prompt", "sampling", "expected"),
    [
        (Prompt("long", "a b c d " * 40), Sampling(8), "Prompt 'long' has .* 8 are to be written"),
        (Prompt("few", "a"), Sampling(CONTEXT), f"no more than {CONTEXT} in all"),
        (Prompt("chat", "a", chat=True), Sampling(8), "no chat template"),
        (Prompt("system", "a", system="b"), Sampling(8), "has a system prompt but is no chat"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(model: HuggingFaceModel, prompt: Prompt, sampling: Sampling, expected: str) -> None:
    with pytest.raises((ConfigError, DataError), match=expected):
        model.generate([prompt], sampling, lambda _: None)


@pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"samples": 2}, {"stop": ("",)}])
def test_sampling_that_means_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Sampling(**settings)


def test_batches_of_a_model_with_few_tokens_are_bounded_by_its_width() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    few, many = (GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=8, n_embd=64, n_layer=1, n_head=2)) for size in (32, 1000))
    for model, widest in (few, 4 * 64), (many, 1000):
        assert Network(model).max_positions == LOGIT_BYTES["cpu"] // (4 * widest)


def test_logits_that_are_not_numbers_name_the_prompt(tmp_path: Path) -> None:
    folder = save_tiny_qwen2(tmp_path / "model", context=CONTEXT)
    change_weights(folder, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(DataError, match="prompt 'p4' logits that are NaN"):
        load(folder).generate(PROMPTS, Sampling(4), lambda _: None)
