"""Generated benchmarks: every item has one right answer, the same arguments give the same bytes, the schemas are the published ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.generate import BENCHMARKS, SCHEMA, Request, generate
from evaluation.benchmarks.inflection import parse_affix
from evaluation.benchmarks.lexicon import english_words, filipino
from evaluation.benchmarks.morphology import shows
from evaluation.benchmarks.questions import LABELS, Question
from nemo_ext.common.errors import ConfigError, OutputExistsError

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "out"
    generate(out, request=Request(items=24, seed=7))
    return out


def rows(folder: Path, name: str) -> Rows:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def everything(folder: Path) -> list[tuple[str, Rows]]:
    return [(path.stem, rows(folder, path.stem)) for path in sorted(folder.glob("*.jsonl"))]


def options_of(row: dict[str, Any]) -> list[str]:
    if "prompts" in row:
        prompt = row["prompts"][0]
        return [prompt[f"choice{number}"] for number in range(1, 1 + len(prompt["mcq_options"]))]
    found: list[str] = row["options"]
    return found


def gold_of(row: dict[str, Any]) -> str:
    if "prompts" not in row:
        return str(row["answer"])
    return str(row["prompts"][0]["mcq_options"]["correct"]) if "mcq_options" in row["prompts"][0] else str(row["label"])


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    manifest = generate(tmp_path / "again", request=Request(items=24, seed=7))
    generate(tmp_path / "other", request=Request(items=24, seed=8))
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        if path.suffix == ".jsonl":
            assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()
            assert manifest["files"][path.name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert manifest["files"][path.name]["items"] == len(path.read_text().splitlines())
    assert manifest["schema"] == SCHEMA and manifest["fewer_than_asked_for"] == {}
    assert manifest == json.loads((folder / "manifest.json").read_text())


def test_options_differ_hold_the_gold_and_no_second_right_answer(folder: Path) -> None:
    for name, found in everything(folder):
        assert len({row["id"] for row in found}) == len(found) > 0
        for row in found:
            accepted = {gold_of(row), *row.get("accepted", [])}
            if name.endswith("_mcq"):
                options = options_of(row)
                assert len(set(options)) == len(options) and accepted & set(options) == {gold_of(row)}, row
                if "prompts" in row:
                    assert options["ABCD".index(row["label"])] == gold_of(row)


def test_the_right_answer_stands_in_every_place_equally_often(folder: Path) -> None:
    for name, found in everything(folder):
        if name.endswith("_mcq"):
            groups: dict[str, Counter[int]] = {}
            for row in found:
                group = groups.setdefault(str(row.get("level", row["subcategory"])), Counter())
                group[options_of(row).index(gold_of(row))] += 1
            for group in groups.values():
                assert max(group.values()) - min(group.values()) <= 1, (name, group)


def test_nothing_in_the_options_alone_tells_the_right_one(folder: Path) -> None:
    """Choosing the longest, the shortest or the one that is most like the others is right about as often as guessing."""

    def likeness(option: str, options: list[str]) -> float:
        return sum(sum(map(str.__eq__, option, other)) + sum(map(str.__eq__, option[::-1], other[::-1])) for other in options)

    measures = {"long": lambda option, _: len(option), "short": lambda option, _: -len(option), "central": likeness}
    points: dict[str, list[float]] = {name: [] for name in measures}
    for name in ("affixation_mcq", "manipulation_mcq", "multi_digit_addition_mcq", "syllabification_mcq", "hierarchical_mcq"):
        for row in rows(folder, name):
            options = options_of(row)
            if row["subcategory"] != "affix_identification" and len(options) == 4:
                for measure, value in measures.items():
                    values = {option: value(option, options) for option in options}
                    best = [option for option in options if values[option] == max(values.values())]
                    points[measure].append((gold_of(row) in best) / len(best))
    for measure, found in points.items():
        assert len(found) > 400 and abs(sum(found) / len(found) - 0.25) < 4 * (0.25 * 0.75 / len(found)) ** 0.5, (measure, found)


def test_no_question_is_asked_twice(folder: Path) -> None:
    for name, found in everything(folder):
        prompts = [row["prompts"][0]["text_en"] if "prompts" in row else row.get("prompt_en", row.get("question")) for row in found]
        levels = [row.get("level") for row in found]
        assert len(set(zip(prompts, levels, strict=True))) == len(found), name


def test_golds_follow_from_the_prompts_by_arithmetic_done_here(folder: Path) -> None:
    for row in rows(folder, "multi_digit_addition_mcq"):
        first, second = row["question"].rstrip("=").split("+")
        assert row["answer"] == str(int(first) + int(second))
    for row in rows(folder, "composition_mcq"):
        quoted = row["prompts"][0]["text_en"].split('"')[1::2]
        if row["subcategory"] == "character_count":
            assert gold_of(row) == str(quoted[1].count(quoted[0]))
        if row["subcategory"] == "length":
            assert gold_of(row) == str(len(quoted[0]))
        if row["subcategory"] == "character_finding":
            assert [option for option in options_of(row) if quoted[0] in option] == [gold_of(row)]
        if row["subcategory"] in ("character_most", "character_least"):
            counts = sorted(options_of(row), key=lambda option: option.count(quoted[0]), reverse=row["subcategory"].endswith("most"))
            assert counts[0] == gold_of(row) and counts[0].count(quoted[0]) != counts[1].count(quoted[0])
    for row in rows(folder, "manipulation_gen"):
        quoted = row["prompts"][0]["text_en"].split('"')[1::2]
        word = quoted[-1]
        expected = {
            "insertion": lambda q, w: w.replace(q[1], q[1] + q[0]),
            "deletion": lambda q, w: w.replace(q[0], ""),
            "substitution": lambda q, w: w.replace(q[0], q[1]),
            "permutation": lambda q, w: w.translate({ord(q[0]): q[1], ord(q[1]): q[0]}),
            "duplication": lambda q, w: w.replace(q[0], q[0] * 2),
            "uppercasing": lambda q, w: w.replace(q[0], q[0].upper()),
        }[row["subcategory"]]
        assert row["label"] == expected(quoted, word) != word


def test_no_wrong_word_could_be_said_to_have_the_affix(folder: Path) -> None:
    for row in rows(folder, "affixation_mcq"):
        if row["subcategory"] == "affix_identification":
            affix = parse_affix(row["prompts"][0]["text_en"].split('"')[1])
            assert shows(gold_of(row), affix)
            assert not any(shows(option, affix) for option in options_of(row) if option != gold_of(row))


def test_every_chain_of_the_hierarchy_has_one_question_per_level_about_one_word(folder: Path) -> None:
    chains: dict[int, Rows] = {}
    for row in rows(folder, "hierarchical_mcq"):
        chains.setdefault(row["metadata"]["chain"], []).append(row)
    assert len(chains) == 24
    for chain in chains.values():
        assert [row["level"] for row in chain] == list(range(6))
        assert len({row["word"] for row in chain}) == len({row["metadata"]["root"] for row in chain}) == 1
        assert chain[3]["answer"] == chain[0]["metadata"]["root"] and chain[4]["answer"] == chain[0]["word"]
    assert len({chain[0]["metadata"]["root"] for chain in chains.values()}) == 24


def test_langgame_is_asked_about_words_of_its_language(tmp_path: Path) -> None:
    generate(tmp_path / "en", ["langgame"], Request(items=5, language="en"))
    assert sorted(path.name for path in (tmp_path / "en").iterdir()) == ["langgame_gen.jsonl", "langgame_mcq.jsonl", "manifest.json"]
    for row in rows(tmp_path / "en", "langgame_mcq"):
        assert set(row["options"]) <= set(english_words()) and row["question"].endswith("Answer:")
        assert ", ".join(row["options"]) in row["question"]


def test_what_is_not_there_is_counted_and_what_is_wrong_refused(folder: Path, tmp_path: Path) -> None:
    manifest = generate(tmp_path / "many", ["pacute"], Request(items=60))
    assert manifest["fewer_than_asked_for"] == {
        f"syllabification_{form}.jsonl: stress_identification": len(filipino().meanings) for form in ("mcq", "gen")
    }
    with pytest.raises(OutputExistsError, match="already exists"):
        generate(folder)
    for suites, request, message in (
        (["pacut"], Request(), "nothing is generated for 'pacut'. Did you mean 'pacute'"),
        ([], Request(), "--suites is empty"),
        (list(BENCHMARKS), Request(items=0), "asks for no items"),
        (list(BENCHMARKS), Request(language="fr"), "Expected one of: en, tl"),
    ):
        with pytest.raises(ConfigError, match=message):
            generate(tmp_path / "refused", suites, request)
    assert not (tmp_path / "refused").exists()


def test_a_question_with_two_right_answers_or_an_option_twice_cannot_be_made() -> None:
    for wrong, accepted in ((("a", "b", "a"), ()), (("gold", "b", "c"), ()), (("a", "b", "c"), ("c",)), (("a", "b", " "), ())):
        with pytest.raises(AssertionError):
            Question("?", "?", "gold", wrong, accepted)
    assert LABELS == "ABCD"
