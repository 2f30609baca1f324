"""Questions with a right answer: items of multiple choice and of free text, checked once when they are read.

The gold is a value, never a position, and the order in which a file lists options means nothing. How items are scored is the
business of `evaluation.choice_scoring`, what the scores amount to of `evaluation.choice_summary`; `evaluation.choice_suite` puts
them together, so that a suite is a reader, a name and a version.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import DataError

MOST_OPTIONS = 26  # letters


@dataclass(frozen=True)
class ChoiceItem:
    """A prompt, its options, and which of them is right.

    An option is scored as what follows the prompt, with `after` behind it. `space`: one space is put between prompt and option, unless
    the prompt is empty or one of both has white space there. `question` is what stands above the listed options where these are shown
    (default: the prompt). `language` is that of the prompt. `cluster` names what items have in common that are not independent of one
    another (a word, a document). `where` is file:line. `extra` goes into per_document.jsonl.
    """

    id: str
    prompt: str
    options: tuple[str, ...]
    gold: str
    category: str = ""
    language: str = ""
    where: str = ""
    question: str | None = None
    after: str = ""
    space: bool = True
    cluster: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """Expected score of guessing."""
        return 1 / len(self.options)

    @property
    def answers(self) -> tuple[str, ...]:
        """What is right."""
        return (self.gold,)

    def texts(self) -> list[str]:
        """All text that shapes the score; the options in an order of their own."""
        return [self.prompt, self.after, self.question or "", self.gold, *sorted(self.continuations)]

    @property
    def continuations(self) -> tuple[str, ...]:
        """The options as they follow the prompt."""
        return tuple(f" {option}" if self.space and needs_space(self.prompt, option) else option for option in self.options)


@dataclass(frozen=True)
class GenerativeItem:
    """A prompt and the answers that are accepted. `exact_case`: letters must have the right case. The rest is as in `ChoiceItem`.

    `after` is what follows the answer, for models that see both sides.
    """

    id: str
    prompt: str
    answers: tuple[str, ...]
    category: str = ""
    language: str = ""
    where: str = ""
    exact_case: bool = False
    after: str = ""
    cluster: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """Nobody guesses a free text."""
        return 0.0

    def texts(self) -> list[str]:
        """All text that shapes the score."""
        return [self.prompt, self.after, *sorted(self.answers), str(self.exact_case)]


Item = ChoiceItem | GenerativeItem


@dataclass(frozen=True)
class ChoiceItems:
    """Checked items of a suite; `sha256` is over ids and texts, and the same for any order of options."""

    path: Path
    items: tuple[Item, ...]
    bytes: int
    sha256: str
    dropped_duplicates: int
    warnings: tuple[str, ...]

    @property
    def documents(self) -> int:
        """How many items there are."""
        return len(self.items)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        choices = [item for item in self.items if isinstance(item, ChoiceItem)]
        clusters = {item.cluster for item in self.items if item.cluster}
        return {
            "path": str(self.path.absolute()),
            "split": None,
            "sha256": self.sha256,
            "documents": len(self.items),
            "bytes": self.bytes,
            "multiple_choice_items": len(choices),
            "options_per_item": {str(size): count for size, count in sorted(Counter(len(item.options) for item in choices).items())},
            "generative_items": len(self.items) - len(choices),
            "languages": dict(sorted(Counter(item.language or "(not stated)" for item in self.items).items())),
            "gold_in_prompt": sum(gold_in_prompt(item) for item in self.items),
            "dropped_duplicates": self.dropped_duplicates,
            "clusters": len(clusters) or None,
        }


def collect_items(path: Path, items: Iterable[Item], drop_duplicates: bool = False) -> ChoiceItems:
    """Check all items. Raises DataError naming file and line of one without a proper gold, options or id.

    drop_duplicates: options that occur twice are dropped and counted, instead of refused; the gold is never one of them.
    """
    kept: list[Item] = []
    places: dict[str, str] = {}
    dropped = 0
    for item in items:
        if item.id in places:
            raise DataError(f"{item.where} has the id {item.id!r}, as {places[item.id]} has. Give each item an id of its own.")
        places[item.id] = item.where
        checked = _check_options(item, drop_duplicates) if isinstance(item, ChoiceItem) else _check_answers(item)
        if isinstance(checked, ChoiceItem) and isinstance(item, ChoiceItem):
            dropped += len(item.options) - len(checked.options)
        kept.append(checked)
    if not kept:
        raise DataError(f"{path} has no items for this suite. Check the path and the suite's options.")
    digest = hashlib.sha256()
    for one in kept:
        digest.update(json.dumps([one.id, *one.texts()], ensure_ascii=False).encode() + b"\n")
    size = sum(len(text.encode()) for one in kept for text in one.texts())
    warnings = [f"{dropped} options that an item had twice were dropped."] if dropped else []
    return ChoiceItems(path, tuple(kept), size, digest.hexdigest(), dropped, tuple(warnings))


def canonical(text: str) -> str:
    """What two options must differ in."""
    return unicodedata.normalize("NFC", text).strip()


def needs_space(before: str, after: str) -> bool:
    """Whether a space must be put between two texts."""
    return bool(before) and not before[-1].isspace() and not after[:1].isspace()


def gold_in_prompt(item: Item) -> bool:
    """Whether an accepted answer stands in the prompt, in any case of letters."""
    prompt = canonical(item.prompt).casefold()
    return any(canonical(answer).casefold() in prompt for answer in item.answers)


def _check_options(item: ChoiceItem, drop_duplicates: bool) -> ChoiceItem:
    known: dict[str, str] = {}
    for option in item.options:
        if not canonical(option):
            raise DataError(f"{item.where} has an empty option among {list(item.options)}. Expected text; mend or remove the item.")
        if canonical(option) in known and not drop_duplicates:
            raise DataError(
                f"{item.where} has the option {option!r} twice in {list(item.options)}, so no answer is the only right one. "
                "Mend the item, or count and drop what is there twice with --set drop_duplicates=true."
            )
        known.setdefault(canonical(option), option)
    gold = known.get(canonical(item.gold))
    if gold is None:
        raise DataError(
            f"{item.where} has the gold {item.gold!r}, which is none of its options {list(item.options)}. "
            "Expected the value of an option, not its position or letter; mend or remove the item."
        )
    if not 2 <= len(known) <= MOST_OPTIONS:
        raise DataError(
            f"{item.where} has {len(known)} different options {list(item.options)[:5]}; expected 2 to {MOST_OPTIONS}. "
            "Mend or remove the item."
        )
    return replace(item, options=tuple(known.values()), gold=gold)


def _check_answers(item: GenerativeItem) -> GenerativeItem:
    if not item.answers or not all(map(canonical, item.answers)):
        raise DataError(
            f"{item.where} has the answers {list(item.answers)}. Expected at least one, and none empty; mend or remove the item."
        )
    return item


def majority_scores(items: Sequence[Item]) -> list[float] | None:
    """Scores of always giving the answer that is most often right in the item's category, and guessing where it is no option.

    None where every right answer of a category is another one, so that a majority means nothing.
    """
    counts: dict[str, Counter[str]] = {}
    for item in items:
        if isinstance(item, ChoiceItem):
            counts.setdefault(item.category, Counter())[item.gold] += 1
    most = {category: min(found, key=lambda value: (-found[value], value)) for category, found in counts.items()}
    if not any(counts[category][value] > 1 for category, value in most.items()):
        return None
    scores = []
    for item in items:
        constant = most[item.category] if isinstance(item, ChoiceItem) else None
        known = isinstance(item, ChoiceItem) and constant in item.options
        scores.append(float(constant in item.answers) if known else item.chance)
    return scores
