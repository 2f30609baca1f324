"""Multiple choice through `sibol evaluate`'s own entry: what theory says of models that know nothing, and sums against a loop by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from evaluation.choice import ChoiceItem, gold_in_prompt
from evaluation.choice_scoring import credit, normalise, rank, shown_order, shown_prompt
from evaluation.compare import compare
from evaluation.loading import load_model, open_folder
from evaluation.models import HuggingFaceModel, Question
from evaluation.run import evaluate
from evaluation.suites import SUITES, Settings
from nemo_ext.common.errors import ConfigError, DataError, SibolError
from tests.support.tiny_language_models import TEXTS, change_weights, save_tiny_gpt2, save_tiny_qwen2

WORDS = ["puno", "bayan", "narra", "araw", "gabi", "dagat", "bundok", "ulan", "hangin", "lupa", "apoy", "bato", "ilog", "dahon"]
CONTEXT = 96


def records(count: int, sizes: Sequence[int] = (2, 3, 4), category: bool = True) -> list[dict[str, Any]]:
    """Items whose gold is each value and each position equally often; options of several lengths."""
    found = []
    for number in range(count):
        size = sizes[number % len(sizes)]
        options = [WORDS[(number * 7 + place * 3) % len(WORDS)] + "s" * (place % 2) for place in range(size)]
        item = {"id": f"i{number}", "prompt": f"Alin ang {number}?", "options": options, "gold": options[(number // 3) % size]}
        found.append(item | {"language": "tl"} | ({"category": f"of {size}"} if category else {}))
    return found


def write(path: Path, items: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def run(
    model: Path, items: Sequence[dict[str, Any]], out: Path, suite: str = "multiple_choice", **given: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and rows of items on a model; `baseline`, and options of the suite."""
    baseline = given.pop("baseline", None)
    data = write(out.with_suffix(".jsonl"), items)
    settings = Settings(resamples=100, options={name: str(value) for name, value in given.items()})
    results = evaluate(model, data, out, suite=suite, settings=settings, device="cpu", baseline_dir=baseline)
    return results, [json.loads(line) for line in (out / "per_document.jsonl").read_text().splitlines()]


def values(results: dict[str, Any]) -> dict[str, float]:
    return {name: entry["value"] for name, entry in results["metrics"].items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model, another, one that gives every token the same logit, and one that always says A."""
    folder = tmp_path_factory.mktemp("models")
    random = save_tiny_qwen2(folder / "random", context=CONTEXT)
    other = save_tiny_qwen2(folder / "other", context=CONTEXT, seed=1)
    zero = save_tiny_qwen2(folder / "zero", context=CONTEXT, spread=0.0)
    always = save_tiny_gpt2(folder / "always", context=CONTEXT, tied=False)
    letter = int(load(always).encode([" A"])[0][-1])

    def say_a(weights: dict[str, Any]) -> None:
        for tensor in weights.values():
            tensor.zero_()
        weights["transformer.ln_f.bias"].fill_(1.0)
        weights["lm_head.weight"][letter] = 1.0

    change_weights(always, say_a)
    return {"random": random, "other": other, "zero": zero, "always": always}


def load(folder: Path, **options: Any) -> HuggingFaceModel:
    found: HuggingFaceModel = load_model(open_folder(folder), "cpu", **options)
    return found


def test_a_model_without_preferences_scores_exactly_chance_by_ties(models: dict[str, Path], tmp_path: Path) -> None:
    items = [item | {"options": list("wxyz")[: len(item["options"])], "gold": "wx"[number % 2]} for number, item in enumerate(records(30))]
    results, rows = run(models["zero"], items, tmp_path / "out")
    chance = sum(1 / len(item["options"]) for item in items) / len(items)
    expected = {"accuracy": chance, "accuracy_sum": chance, "accuracy_byte": chance, "accuracy_shown": chance, "above_chance": 0}
    assert values(results) == pytest.approx(expected, abs=1e-12)
    assert results["references"]["uniform"]["accuracy"]["value"] == pytest.approx(chance)
    assert {row["correct"] for row in rows} <= {1 / 2, 1 / 3, 1 / 4}
    pairs = [{"sentence_good": f"{letter}wy", "sentence_bad": f"{letter}yw", "UID": "x"} for letter in "defghij"]
    assert values(run(models["zero"], pairs, tmp_path / "pairs", "minimal_pairs")[0])["accuracy"] == 0.5


def test_weights_that_are_not_numbers_end_the_evaluation(tmp_path: Path) -> None:
    folder = save_tiny_qwen2(tmp_path / "nan", context=CONTEXT)
    change_weights(folder, lambda weights: [tensor.fill_(math.nan) for tensor in weights.values()])
    with pytest.raises(DataError, match="log-likelihood nan, but a score must be finite"):
        run(folder, records(5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_always_says_a_scores_chance_where_options_are_shown(models: dict[str, Path], tmp_path: Path) -> None:
    items = records(400, sizes=(4,))
    _, rows = run(models["always"], items, tmp_path / "out")
    right = sum(row["correct_shown"] for row in rows)
    assert right == sum(row["shown"][0] == item["gold"] for row, item in zip(rows, items, strict=True))
    low, high = binom.ppf([0.0005, 0.9995], len(items), 1 / 4)
    assert low <= right <= high
    assert {row["predicted"]["shown"] == row["shown"][0] for row in rows} == {True}


def test_the_order_of_options_and_the_position_of_the_gold_change_nothing(models: dict[str, Path], tmp_path: Path) -> None:
    items = records(40)
    turned = [item | {"options": item["options"][1:] + item["options"][:1]} for item in items]
    gold_first = [item | {"options": sorted(item["options"], key=lambda text: text != item["gold"])} for item in items]
    found = [run(models["random"], given, tmp_path / name) for name, given in (("a", items), ("b", turned), ("c", gold_first))]
    assert len({results["data"]["sha256"] for results, _ in found}) == 1
    for results, rows in found[1:]:
        assert values(results) == values(found[0][0])
        for row, first in zip(rows, found[0][1], strict=True):
            assert {name: row[name] for name in row if name.startswith("correct")} == {
                name: first[name] for name in first if name.startswith("correct")
            }
            by_option = dict(zip(row["options"], row["log_likelihoods"], strict=True))
            assert by_option == pytest.approx(dict(zip(first["options"], first["log_likelihoods"], strict=True)), rel=1e-6)
    assert 0 < values(found[0][0])["accuracy_sum"] < 1


def by_hand(folder: Path, text: str, option: str, start: int | None = None) -> tuple[float, list[str]]:
    """Sum over the tokens of `text + option` from `start` on, one pass per token, and these; default: after those `text` begins with."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    before, whole = tokenizer(text)["input_ids"], tokenizer(text + option)["input_ids"]
    if start is None:
        start = next((place for place, token in enumerate(before) if token != whole[place]), len(before))
    ids, total = [*([] if start else [tokenizer.eos_token_id]), *whole], 0.0
    for place in range(len(ids) - (len(whole) - start), len(ids)):
        with torch.no_grad():
            logits = network(torch.tensor([ids[:place]])).logits[0, -1].double()
        total += float(logits[ids[place]] - logits.logsumexp(-1))
    return total, tokenizer.convert_ids_to_tokens(whole[start:])


def test_options_have_the_likelihood_of_a_loop_by_hand_whatever_they_share(models: dict[str, Path]) -> None:
    text = "Bayan ko, lupang"
    options = (" hinirang", " hinirang: ang bayan", " hi", " Ñ", " h")  # some begin with others
    batched, single = load(models["random"]), load(models["random"], batch_size=1)
    for model in (batched, single):
        (scores,) = model.option_scores([Question("q", text, options)], lambda _: None)
        for option, score in zip(options, scores, strict=True):
            expected, tokens = by_hand(models["random"], text, option)
            assert score.log_likelihood == pytest.approx(expected, rel=1e-6)
            assert (score.tokens, score.bytes) == (len(tokens), len(option.encode()))
    unlike = [Question(f"q{number}", text[:number], options[: number % 4 + 1]) for number in range(len(text))]
    for one, other in zip(batched.option_scores(unlike, lambda _: None), single.option_scores(unlike, lambda _: None), strict=True):
        assert [score.log_likelihood for score in one] == pytest.approx([score.log_likelihood for score in other], rel=1e-6)


def test_options_that_grow_into_the_prompts_last_token_are_all_scored_from_there(models: dict[str, Path]) -> None:
    model, text = load(models["random"]), "Ang bay"
    joined, apart = model.encode([text + "an"])[0].tolist(), model.encode([text])[0].tolist()
    assert joined[: len(apart)] != apart  # "an" shares a token with the prompt's end
    (scores,) = model.option_scores([Question("q", text, ("an", " ko"))], lambda _: None)
    shared = next(place for place, (one, other) in enumerate(zip(joined, apart, strict=False)) if one != other)
    for option, score in zip(("an", " ko"), scores, strict=True):
        expected, tokens = by_hand(models["random"], text, option, start=shared)
        assert score.tokens == len(tokens)
        assert score.log_likelihood == pytest.approx(expected, rel=1e-5)


def test_results_are_paired_with_the_baseline_and_compare_reads_them(models: dict[str, Path], tmp_path: Path) -> None:
    items = records(60)
    results, rows = run(models["random"], items, tmp_path / "out", baseline=models["other"])
    difference = results["baseline"]["difference"]["accuracy"]
    assert difference["value"] == pytest.approx(sum(row["correct"] - row["baseline_correct"] for row in rows) / len(rows))
    assert difference["low"] < difference["value"] < difference["high"]
    assert values(results)["accuracy"] == values(results)["accuracy_byte"] == pytest.approx(sum(row["correct"] for row in rows) / len(rows))
    assert {name: entry["items"] for name, entry in results["domains"].items()} == {"of 2": 20, "of 3": 20, "of 4": 20}
    found = compare([tmp_path / "out"])["suites"][0]
    assert [arm["value"] for arm in found["arms"]] == [results["baseline"]["metrics"]["accuracy"]["value"], values(results)["accuracy"]]
    assert set(found["arms"][0]["categories"]) == set(results["domains"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"gold": "0"}, r"jsonl:2 has the gold '0', which is none of its options .*not its position"),
        ({"options": ["a", "b", "b "], "gold": "a"}, r"jsonl:2 has the option 'b ' twice .*drop_duplicates=true"),
        ({"options": ["a"], "gold": "a"}, r"jsonl:2 has 1 different options"),
        ({"options": ["a", " "], "gold": "a"}, r"jsonl:2 has an empty option"),
        ({"id": "i0"}, r"jsonl:2 has the id 'i0', as .*jsonl:1 has"),
        ({"language": "xx"}, r"jsonl:2 has a prompt in language 'xx'.*--set shown=false"),
        ({"options": "ab"}, r"jsonl:2 has 'ab' in field 'options'"),
        ({"prompt": None}, r"jsonl:2 has no text in field 'prompt' \(found None in it\)"),
        ({"answers": [""]}, r"jsonl:2 has the answers \[''\]"),
        ({"answers": ["b"], "exact_case": "true"}, r"jsonl:2 has 'true' in field 'exact_case', expected true or false"),
    ],
)
def test_an_item_without_one_right_answer_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    from evaluation.suites.multiple_choice import SUITE

    items = records(2)
    with pytest.raises(DataError, match=complaint):
        SUITE.read(write(tmp_path / "data.jsonl", [items[0], items[1] | change]), Settings())


def test_duplicates_are_dropped_and_counted_on_request(models: dict[str, Path], tmp_path: Path) -> None:
    items = [records(1)[0] | {"options": ["a", "b", "b"], "gold": "b"}]
    results, rows = run(models["random"], items, tmp_path / "out", drop_duplicates="true")
    assert rows[0]["options"] == ["a", "b"] and rows[0]["chance"] == 0.5
    assert results["data"]["dropped_duplicates"] == 1 and "1 options" in results["warnings"][0]


def test_majority_clusters_and_golds_in_prompts_are_in_the_table(models: dict[str, Path], tmp_path: Path) -> None:
    items = [{"prompt": f"Ilan {number}?", "options": ["isa", "dalawa"], "gold": "isa" if number % 4 else "dalawa"} for number in range(24)]
    items = [item | {"cluster": f"c{number // 2}", "language": "tl"} for number, item in enumerate(items)]
    items[5]["prompt"] = "Isa o dalawa?"
    results, _ = run(models["random"], items, tmp_path / "out")
    assert results["references"]["majority"]["accuracy"]["value"] == 0.75
    assert (results["data"]["clusters"], results["data"]["gold_in_prompt"]) == (12, 1)
    assert "clusters" in results["settings"]["interval"]
    assert "12 clusters of items" in results["warnings"][0] and "1 of 24 items" in results["warnings"][1]
    assert "accuracy_gold_not_in_prompt" in results["metrics"]


def test_free_text_is_right_when_it_equals_an_answer_and_samples_are_averaged(models: dict[str, Path], tmp_path: Path) -> None:
    items = [{"id": f"t{number}", "prompt": text[:12], "answers": ["xyz", "Narra"]} for number, text in enumerate(TEXTS)]
    model = models["random"]
    _, rows = run(model, items, tmp_path / "out", temperature=1.0, samples=4, max_new_tokens=3)
    again = [item | {"answers": [rows[number]["written"][0], "xyz"]} for number, item in enumerate(items)]
    again = [item for item in again if normalise(item["answers"][0])]
    results, found = run(model, again, tmp_path / "again", temperature=1.0, samples=4, max_new_tokens=3)
    for row in found:
        texts = [normalise(text) for text in row["written"]]
        assert row["correct"] == texts.count(normalise(row["answers"][0])) / 4 > 0
        assert row["contains"] >= row["correct"]
    assert values(results)["accuracy"] == pytest.approx(sum(row["correct"] for row in found) / len(found))
    assert "above_chance" not in results["metrics"] and "contains" in results["metrics"]


def test_texts_that_were_cut_are_counted_for_each_model(models: dict[str, Path], tmp_path: Path) -> None:
    items = [{"id": f"t{number}", "prompt": text[:12], "answers": ["x"]} for number, text in enumerate(TEXTS)]
    results, _ = run(models["random"], items, tmp_path / "out", baseline=models["other"], max_new_tokens=1)
    cut = [warning for warning in results["warnings"] if "were cut" in warning]
    assert [warning.split(" wrote ")[0] for warning in cut] == ["The model", "The baseline"] and "max_new_tokens" in cut[0]


@pytest.mark.parametrize(("given", "option"), [({"split": "dev"}, "--split"), ({"text_field": "body"}, "--text-field")])
def test_options_without_an_effect_are_refused(given: dict[str, Any], option: str) -> None:
    for name in ("cloze", "hierarchical", "minimal_pairs", "multiple_choice"):
        with pytest.raises(ConfigError, match=f"{option}: the suite {name} does not read it"):
            SUITES.get(name).check(Settings(**given), [])


def test_a_right_answer_is_found_in_the_prompt_however_its_accents_are_written() -> None:
    for prompt in ("Se\u00f1or", "Sen\u0303or"):
        for gold in ("se\u00f1or", "sen\u0303or"):
            assert gold_in_prompt(ChoiceItem("i", prompt, (gold, "x"), gold))


def test_both_kinds_of_items_count_in_accuracy_and_each_rule_is_beside_the_chance_of_its_own_items(
    models: dict[str, Path], tmp_path: Path
) -> None:
    texts = [{"id": f"t{number}", "prompt": f"{number}", "answers": ["x"]} for number in range(10)]
    results, rows = run(models["random"], [*records(30, sizes=(2,)), *texts], tmp_path / "out")
    uniform = {name: entry["value"] for name, entry in results["references"]["uniform"].items()}
    assert uniform == pytest.approx({"accuracy": 0.375, "accuracy_sum": 0.5, "accuracy_byte": 0.5, "accuracy_shown": 0.5})
    assert values(results)["accuracy"] == pytest.approx(sum(row["correct"] for row in rows) / 40)
    assert values(results)["accuracy_sum"] == pytest.approx(sum(row["correct_sum"] for row in rows[:30]) / 30)
    assert (results["data"]["multiple_choice_items"], results["data"]["generative_items"]) == (30, 10)


def test_normalisation_is_what_it_says() -> None:
    assert normalise(' "Narra."\n') == normalise("narra") == normalise("**Narra**") == "narra"
    assert normalise("NARRA", exact_case=True) == "NARRA"
    assert normalise(".") == "." and normalise("a  b") == "a b" and normalise("n\u0303") == "\u00f1"


def test_ties_share_the_point_and_the_order_shown_is_fair() -> None:
    scores = np.array([-1.0, -1.0 + 1e-13, -2.0])
    assert (credit(scores, 0), credit(scores, 2), rank(scores, 1), rank(scores, 2)) == (0.5, 0.0, 1.5, 3.0)
    items = [ChoiceItem(f"i{number}", "p", ("a", "b", "c"), "a", language="en", question="Which?") for number in range(600)]
    orders = [shown_order(item, 1) for item in items]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and all(binom.cdf(count, 600, 1 / 6) > 1e-4 and binom.sf(count, 600, 1 / 6) > 1e-4 for count in counts)
    assert orders != [shown_order(item, 2) for item in items]
    assert shown_prompt(items[0], ("c", "a", "b")) == "Which?\nA. c\nB. a\nC. b\nAnswer:"


def test_options_of_free_text_are_checked(models: dict[str, Path], tmp_path: Path) -> None:
    for given, complaint in ({"temperature": "-1"}, "temperature"), ({"system": "x"}, "chat=true"), ({"chat": "true"}, "no chat template"):
        with pytest.raises(SibolError, match=complaint):
            run(models["random"], [{"prompt": "a", "answers": ["b"]}], tmp_path / "out", **given)
