"""PACUTE: what a model knows of the spelling, the syllables and the inflection of Filipino words.

Data: the files of PACUTE (arXiv:2606.15144) or of `sibol evaluate generate`, {affixation, composition, manipulation, syllabification,
morphological_extraction, morphological_production}_{mcq, gen}.jsonl. Multiple choice is scored by the value of the right option; items
with an option twice, of which the published files have some, are refused or mended with drop_duplicates. In free answers about upper
and lower case the case counts.

Families and their subcategories are the rows of the report's table. Items about one word, where the file names it, are drawn together
in the intervals. `human` stands beside the figures where every file has as many items as those that people were asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluation.choice import ChoiceItem, ChoiceItems, Item
from evaluation.choice_summary import ChoiceScores, summarise_choices
from evaluation.records import Record
from evaluation.suites import Settings, Summary
from evaluation.suites.published import WRITTEN, LanguageOptions, PublishedSuite, answer_of, make_item, nested
from nemo_ext.common.errors import DataError

LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CASE_MATTERS = ("uppercasing", "lowercasing", "uppercase")
# Items per family and form in the release of May 2026, and accuracy of three people on a tenth of them (same repository,
# data/human_baseline).
HUMAN = {
    "composition": (950, 0.926),
    "manipulation": (800, 0.983),
    "morphological extraction": (400, 0.942),
    "morphological production": (150, 0.978),
    "syllabification": (200, 0.767),
    "composition (written)": (550, 0.982),
    "manipulation (written)": (800, 1.0),
    "morphological extraction (written)": (400, 0.925),
    "morphological production (written)": (150, 0.911),
    "syllabification (written)": (200, 0.967),
}


class Pacute(PublishedSuite):
    """The suite, see the module's text for the definition."""

    name = "pacute"
    version = 1
    options = LanguageOptions
    files = (
        *("affixation", "composition", "manipulation", "syllabification"),
        *("morphological_extraction", "morphological_production"),
    )

    def item(self, record: Record, family: str, chosen: Any) -> Item:
        """The item of a line, with its prompt in the chosen language."""
        prompts = record.fields.get("prompts")
        if not isinstance(prompts, list) or not prompts:
            raise DataError(f"{record.place} has no prompts. Expected PACUTE's schema, a list with one object; mend or remove the line.")
        prompt = nested(record, prompts[0], "prompts[0]")
        subcategory = record.text("subcategory")
        options = _options(prompt) if "mcq_options" in prompt.fields else None
        return make_item(
            record,
            prompt.text(f"text_{chosen.language}"),
            chosen.language,
            f"{family or record.text('category')}: {subcategory}".replace("_", " "),
            answer_of(record, "label") if options is None else _gold(record, prompt, options),
            options,
            cluster=record.text("word") if "word" in record.fields else "",
            exact_case=subcategory in CASE_MATTERS,
        )

    def references(self, items: ChoiceItems) -> Mapping[str, float]:
        """What people scored, where these are as many items as they were asked about."""
        sizes = Counter(_family(item) for item in items.items)
        if not all(name in HUMAN and HUMAN[name][0] == size for name, size in sizes.items()):
            return {}
        return {"human": sum(HUMAN[name][1] * size for name, size in sizes.items()) / sum(sizes.values())}

    def summarise(self, scores: Sequence[ChoiceScores], settings: Settings) -> Summary:
        """As for any multiple choice, with a row for each family above those of its subcategories."""
        summary = super().summarise(scores, settings)
        families = tuple(replace(item, category=_family(item)) for item in scores[0].items.items)
        above = summarise_choices([replace(scores[0], items=replace(scores[0].items, items=families))], settings).domains
        return replace(summary, domains=dict(sorted((above | summary.domains).items(), key=_below_family)))


SUITE = Pacute()


def _family(item: Item) -> str:
    """The family of the item's category, with its form."""
    return item.category.split(":")[0] + ("" if isinstance(item, ChoiceItem) else WRITTEN)


def _options(prompt: Record) -> tuple[str, ...]:
    choices = nested(prompt, prompt.fields["mcq_options"], "mcq_options")
    names = [name for number in range(1, 1 + len(LABELS)) if (name := f"choice{number}") in prompt.fields]
    return tuple(prompt.text(name) for name in names) or tuple(choices.text(name) for name in choices.fields)


def _gold(record: Record, prompt: Record, options: Sequence[str]) -> str:
    """The value of mcq_options.correct, which must be the option that the label says."""
    gold, label = nested(prompt, prompt.fields["mcq_options"], "mcq_options").text("correct"), record.text("label")
    labelled = dict(zip(LABELS, options, strict=False)).get(label)
    if labelled is None or labelled.strip() != gold.strip():
        raise DataError(
            f"{record.place} says that {gold!r} is right and that option {label!r} is, which is {labelled!r}. "
            "Expected both to mean the same; mend or remove the line."
        )
    return gold


def _below_family(domain: tuple[str, object]) -> tuple[str, bool, str]:
    """Families in order of the alphabet, each before its subcategories, free answers after."""
    name = domain[0]
    return name.split(":")[0].removesuffix(WRITTEN), name.endswith(WRITTEN), name
