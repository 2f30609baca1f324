"""What suites of questions with a right answer share: options, scoring, summary. A suite adds a reader, a name and a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.choice import ChoiceItem, ChoiceItems, GenerativeItem, Item, collect_items
from evaluation.choice_scoring import ItemScore, score_choices, score_texts, shown_prompt
from evaluation.choice_summary import ChoiceScores, summarise_choices
from evaluation.forward import Advance
from evaluation.generation import Prompt, Sampling
from evaluation.loading import ModelFolder
from evaluation.masked import PseudoLikelihood, load_either
from evaluation.suites import Settings, Summary
from evaluation.suites.base import SuiteDefaults
from nemo_ext.common.errors import ConfigError


@dataclass(frozen=True)
class ChoiceOptions:
    """Options of a suite of multiple choice.

    drop_duplicates: drop options that an item has twice, and count them, instead of refusing the item. shown: also list the options
    in the prompt and score their letters. pseudo_likelihood: how masked models score (`evaluation.masked`).
    """

    drop_duplicates: bool = False
    shown: bool = True
    pseudo_likelihood: PseudoLikelihood = "within_word_l2r"


@dataclass(frozen=True)
class TextOptions(ChoiceOptions):
    """Options of a suite that also has items of free text.

    Texts are greedy unless there is a temperature; with several samples, an item's score is their mean. chat: prompts go through the
    tokenizer's chat template, after `system`; otherwise a text ends with its first line.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    chat: bool = False
    system: str | None = None

    def sampling(self, seed: int) -> Sampling:
        """How texts are written."""
        stop = () if self.chat else ("\n",)
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.samples, stop, seed)


class ChoiceSuite(SuiteDefaults):
    """A suite of `ChoiceItem`s and, where its options are `TextOptions`, of `GenerativeItem`s.

    rule: the one that `accuracy` is about for multiple choice. lists_options: whether listing the options in a prompt makes sense.
    by_category: whether results have a table of categories.
    """

    version: int
    primary_metric = "accuracy"
    lower_is_better = False
    options: type[Any] = ChoiceOptions
    interval = "percentile bootstrap over items, or over clusters of them where items have any"
    unused = MappingProxyType({**SuiteDefaults.unused, "split": "--split", "text_field": "--text-field"})
    rule = "byte"
    lists_options = True
    by_category = True

    def read_items(self, path: Path, settings: Settings) -> Iterable[Item]:
        """The items at `path`, as they stand there."""
        raise AssertionError(f"{type(self).__name__} has no reader")

    def references(self, items: ChoiceItems) -> Mapping[str, float]:
        """Published accuracies on these very items: name -> accuracy."""
        return {}

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse options and contexts that the suite or a model cannot take."""
        super().check(settings, folders)
        chosen = self.chosen(settings)
        if isinstance(chosen, TextOptions):
            chosen.sampling(settings.seed)
            if chosen.system is not None and not chosen.chat:
                raise ConfigError("--set system= is for chats. Add --set chat=true, or put the text into the prompts.")

    def read(self, path: Path, settings: Settings) -> ChoiceItems:
        """Checked items; those that are to be shown in a language without a cue are refused."""
        chosen = self.chosen(settings)
        items = collect_items(path, self.read_items(path, settings), chosen.drop_duplicates)
        if self._shown(settings):
            for item in items.items:
                if isinstance(item, ChoiceItem):
                    shown_prompt(item, item.options)
        return items

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> Any:
        """The model of `folder`, causal or masked."""
        method = self.chosen(settings).pseudo_likelihood
        return load_either(folder, device, settings.context_tokens, settings.batch_size, method)

    def score(self, model: Any, items: ChoiceItems, settings: Settings, advance: Advance) -> ChoiceScores:
        """Scores of all items, in their order."""
        choices = [item for item in items.items if isinstance(item, ChoiceItem)]
        texts = [item for item in items.items if isinstance(item, GenerativeItem)]
        found: dict[str, ItemScore] = {}
        if texts:  # first, because not every model can write
            written = self._write(model, texts, settings, advance)
            found |= {item.id: score for item, score in zip(texts, written, strict=True)}
        if choices:
            scores = score_choices(model, choices, self._shown(settings), settings.seed, advance)
            found |= {item.id: score for item, score in zip(choices, scores, strict=True)}
        return ChoiceScores(items, [found[item.id] for item in items.items], self.rule)

    def summarise(self, scores: Sequence[ChoiceScores], settings: Settings) -> Summary:
        """Accuracy under each rule, beside guessing and the majority."""
        return summarise_choices(scores, settings, self.references(scores[0].items), self.by_category)

    def _shown(self, settings: Settings) -> bool:
        return self.lists_options and self.chosen(settings).shown

    def _write(self, model: Any, texts: Sequence[GenerativeItem], settings: Settings, advance: Advance) -> list[ItemScore]:
        chosen = self.chosen(settings)
        assert isinstance(chosen, TextOptions), f"{self.name} has items of free text, so its options must be TextOptions"
        if not hasattr(model, "generate"):
            raise ConfigError(f"The suite {self.name} has items of free text, which a masked model cannot write. Choose a causal model.")
        return score_texts(model, texts, chosen.sampling(settings.seed), advance, lambda item: _prompt(item, chosen))


def _prompt(item: GenerativeItem, chosen: TextOptions) -> Prompt:
    return Prompt(item.id, item.prompt, chosen.system, chosen.chat)
