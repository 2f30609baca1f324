"""What reaches a model that writes or labels, and what of its answers counts. The models here say what the test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.classification import WordLabels
from evaluation.generation import Generated, Prompt, Sampling
from evaluation.metrics.entities import Entity
from evaluation.suites import Settings
from evaluation.suites.ner import SUITE
from evaluation.suites.ner_data import NerItems, NerOptions, read_items, read_predictions
from evaluation.suites.ner_predict import Predictions, as_lines, check_options, classify, from_labels, generate
from nemo_ext.common.errors import ConfigError

DATA = """-DOCSTART- O

Anna B-PER
met O
Maria B-PER
Bo I-PER
. O

She O
left O
Rome B-LOC
. O

-DOCSTART- O

Rome B-LOC
slept O
"""
OPTIONS = NerOptions(prompt="{labels}: {text} =>", chunk_words=5)


class Writer:
    """Answers each prompt by a rule."""

    def __init__(self, answer: Callable[[str], str], finished: bool = True) -> None:
        self.answer, self.finished = answer, finished
        self.prompts: list[Prompt] = []
        self.sampling: list[Sampling] = []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Callable[[float], None]) -> list[list[Generated]]:
        self.prompts += prompts
        self.sampling.append(sampling)
        return [[Generated(self.answer(prompt.text), 5, self.finished)] for prompt in prompts]


@pytest.fixture
def items(tmp_path: Path) -> NerItems:
    (tmp_path / "data.conll").write_text(DATA)
    return read_items(tmp_path / "data.conll", OPTIONS)


def written(items: NerItems, answer: Callable[[str], str], options: NerOptions = OPTIONS, finished: bool = True) -> Predictions:
    return generate(Writer(answer, finished), items, options, 7, lambda _: None)


def test_prompts_have_the_labels_and_whole_sentences_and_ids_of_their_own(items: NerItems) -> None:
    writer = Writer(lambda text: "")
    generate(writer, items, OPTIONS, 7, lambda _: None)
    assert [prompt.text for prompt in writer.prompts] == [
        "LOC, PER: Anna met Maria Bo . =>",
        "LOC, PER: She left Rome . =>",
        "LOC, PER: Rome slept =>",
    ]
    assert len({prompt.id for prompt in writer.prompts}) == 3
    assert (writer.sampling[0].temperature, writer.sampling[0].stop) == (0.0, ("\n",))
    chat = Writer(lambda text: "")
    generate(chat, items, replace(OPTIONS, chat=True, chunk_words=100), 7, lambda _: None)
    assert [prompt.chat for prompt in chat.prompts] == [True, True]
    assert chat.sampling[0].stop == ()


def test_a_writer_that_marks_everything_right_finds_everything(items: NerItems) -> None:
    marked = {"Anna": "[Anna | per]", "Maria Bo": "[Maria Bo|PER]", "Rome": "[ Rome | Place ]"}

    def answer(text: str) -> str:
        source = text.partition(": ")[2].removesuffix(" =>")
        for name, mark in marked.items():
            source = source.replace(name, mark)
        return source

    predictions = written(items, answer, replace(OPTIONS, labels=("Place:LOC",)))
    assert [one.entities for one in predictions.found] == list(items.gold)
    assert predictions.warnings == []


def test_what_is_made_up_counts_as_predicted_and_never_as_right(items: NerItems) -> None:
    answers = iter(["Anna met [Maria Po | PER].", "[Rome | LOC] is a song", "[Rom | LOC] slept"])
    predictions = written(items, lambda text: next(answers))
    assert [one.entities for one in predictions.found] == [(), ()]
    assert [one.misplaced for one in predictions.found] == [("PER", "LOC"), ("LOC",)]
    assert predictions.warnings[0].startswith("1 of 3 generated texts repeat less than half of their source")
    assert predictions.warnings[1].startswith("3 generated marks are on names that the source does not have there")


def test_texts_cut_at_the_limit_are_counted_and_a_type_that_is_not_asked_for_is_kept_as_it_is(items: NerItems) -> None:
    predictions = written(items, lambda text: "[Anna | Person] met Maria Bo .", finished=False)
    assert predictions.found[0].entities == (Entity(0, 1, "Person"),)
    assert "3 of 3 generated texts were cut at the limit" in predictions.warnings[-1]


class Labeller:
    """Calls every word a person, and keeps what it was shown."""

    labels = ("O", "B-PER", "B-MISC")

    def __init__(self) -> None:
        self.shown: list[str] = []

    def classify(self, sequences: Sequence[Sequence[str]], names: Sequence[str], advance: Callable[[float], None]) -> list[WordLabels]:
        self.shown = [" ".join(words) for words in sequences]
        return [WordLabels(("B-PER",) * len(words), 1) for words in sequences]


def test_a_model_that_labels_is_shown_parts_and_what_it_cannot_find_is_said(tmp_path: Path) -> None:
    lines = ["Anna\tB-PER\t_", "left\tO\tEndOfSentence", "Rome\tB-LOC\t_"]
    (tmp_path / "data.tsv").write_text("\n".join(["TOKEN\tNE-COARSE-LIT\tMISC", *lines]))
    items = read_items(tmp_path / "data.tsv", NerOptions())
    model = Labeller()
    predictions = classify(model, items, NerOptions(), lambda _: None)
    assert model.shown == ["Anna left Rome"]
    assert predictions.found[0].entities == tuple(Entity(place, place + 1, "PER") for place in range(3))
    assert predictions.warnings == [
        "The model has no label for LOC, so 1 mentions cannot be found.",
        "The tokenizer makes no token of 1 words; they count as outside of any entity.",
    ]
    assert classify(model, items, NerOptions(by_sentence=True), lambda _: None).found == predictions.found
    assert model.shown == ["Anna left", "Rome"]


def test_predictions_written_as_lines_are_read_as_predictions(items: NerItems, tmp_path: Path) -> None:
    marks = {"LOC, PER: Anna met Maria Bo . =>": "[Anna met | PER] [Maria | PER] Bo .", "LOC, PER: Rome slept =>": "Rome [slept | LOC]"}
    predictions = written(items, lambda text: marks.get(text, text))
    (tmp_path / "predictions.tsv").write_bytes(as_lines(predictions))
    labels = read_predictions(tmp_path / "predictions.tsv", items, OPTIONS)
    again = from_labels(items, labels, items.scheme, {"PER": "PER", "LOC": "LOC"})
    assert again.found == predictions.found
    assert again.found[0].entities == (Entity(0, 2, "PER"), Entity(2, 3, "PER"))


def test_a_word_of_other_white_space_is_a_word_in_every_kind_of_file(tmp_path: Path) -> None:
    header = "TOKEN\tNE-COARSE-LIT\tMISC\n"
    (tmp_path / "hipe.tsv").write_text(header + "Rome\tB-loc\t_\n\u00a0\tO\t_\n", encoding="utf-8")
    items = read_items(tmp_path / "hipe.tsv", OPTIONS)
    (tmp_path / "predictions.tsv").write_bytes(as_lines(from_labels(items, [("B-loc", "O")], "iob2", {"loc": "loc"})))
    assert read_predictions(tmp_path / "predictions.tsv", items, OPTIONS) == [("B-loc", "O")]


def test_options_that_make_no_sense_are_refused(items: NerItems) -> None:
    with pytest.raises(ConfigError, match=r"has no \{text\}"):
        written(items, lambda text: "", NerOptions(prompt="Mark it."))
    for name in ("period_years", "chunk_words", "max_new_tokens"):
        with pytest.raises(ConfigError, match=f"--set {name}=0: expected at least 1"):
            check_options(NerOptions(**{name: 0}))
    with pytest.raises(ConfigError, match="expected at most 1000"):
        check_options(NerOptions(chunk_words=2000))
    unread = {"--split": Settings(split="dev"), "--text-field": Settings(text_field="a"), "--stride": Settings(stride_tokens=8)}
    for option, settings in unread.items():
        with pytest.raises(ConfigError, match=f"{option}: the suite ner does not read it"):
            SUITE.check(settings, [])
