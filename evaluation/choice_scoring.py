"""How items are scored: options by likelihood under three rules, texts by exact match.

sum     log-likelihood of the option after the prompt, summed over its tokens; favours short options
byte    the same, divided by the UTF-8 bytes of the option; favours long ones less and depends on no tokenizer
shown   the options are listed in the prompt under letters, in an order that depends on seed, item and options alone, and the letters
        are scored; what counts as right is the letter of the gold value

Options that no rule can tell apart share the point: 1/k for the gold among k best. A log-likelihood that is not finite ends the
evaluation with an error (`evaluation.rows`). A text is right when it equals an accepted answer after `normalise`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evaluation.choice import ChoiceItem, GenerativeItem, gold_in_prompt
from evaluation.forward import Advance
from evaluation.generation import Generated, Prompt, Sampling
from evaluation.models import ContinuationScore, Question
from nemo_ext.common.errors import DataError

RULES = ("sum", "byte", "shown")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CUES = {"en": "Answer:", "tl": "Sagot:", "fil": "Sagot:"}  # what stands before the letter, in the language of the prompt
# Two scores are a tie when they differ by no more than rounding: log-likelihoods are sums of fp32 logarithms in fp64.
TIE = 1e-9


class OptionModel(Protocol):
    """What scores options: a causal or a masked model."""

    def option_scores(self, questions: Sequence[Question], advance: Advance) -> list[list[ContinuationScore]]:
        """Scores of each question's options."""
        ...


class WritingModel(Protocol):
    """What writes texts."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance) -> list[list[Generated]]:
        """Samples of what follows each prompt."""
        ...


@dataclass(frozen=True)
class ItemScore:
    """Score of one item under each rule, 0 to 1, and what else its row in per_document.jsonl says."""

    scores: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


def score_choices(model: OptionModel, items: Sequence[ChoiceItem], shown: bool, seed: int, advance: Advance) -> list[ItemScore]:
    """Scores of multiple choice under `sum` and `byte`, and with `shown` under that rule too."""
    questions = [Question(item.id, item.prompt, item.continuations, item.after) for item in items]
    orders = [shown_order(item, seed) for item in items] if shown else []
    listed = [Question(item.id, shown_prompt(item, order), letters(order)) for item, order in zip(items, orders, strict=False)]
    advance = _scaled(advance, items, [*questions, *listed])
    found = model.option_scores(questions, advance)
    found_shown = model.option_scores(listed, advance)
    results = []
    for number, (item, scores) in enumerate(zip(items, found, strict=True)):
        sums = np.array([score.log_likelihood for score in scores])
        # Causal models score what stands after the blank as well, masked ones do not; `bytes` are those of what was scored, without the
        # space that we put before it.
        spaces = [len(text) - len(option) for text, option in zip(item.continuations, item.options, strict=True)]
        per_byte = sums / np.array([score.bytes - space for score, space in zip(scores, spaces, strict=True)])
        values = {"sum": (sums, item.options), "byte": (per_byte, item.options)}
        if shown:
            values["shown"] = (np.array([score.log_likelihood for score in found_shown[number]]), orders[number])
        results.append(_item_score(item, values, sum(score.unknown_tokens for score in scores)))
    return results


def _item_score(item: ChoiceItem, values: Mapping[str, tuple[Any, Sequence[str]]], unknown_tokens: int) -> ItemScore:
    scores = {rule: credit(found, options.index(item.gold)) for rule, (found, options) in values.items()}
    details: dict[str, Any] = {
        "gold": item.gold,
        "options": list(item.options),
        "log_likelihoods": values["sum"][0].tolist(),
        "predicted": {rule: options[int(found.argmax())] for rule, (found, options) in values.items()},
        "rank": {rule: rank(found, options.index(item.gold)) for rule, (found, options) in values.items()},
        "chance": item.chance,
        "unknown_tokens": unknown_tokens,
        "gold_in_prompt": gold_in_prompt(item),
    }
    if "shown" in values:
        details["shown"] = list(values["shown"][1])
    return ItemScore(scores, details)


def _scaled(advance: Advance, items: Sequence[ChoiceItem], questions: Sequence[Question]) -> Advance:
    """Progress in bytes of the items, of which some are scored twice and some only in part."""
    work = sum(len((option + question.after).encode()) for question in questions for option in question.options)
    share = sum(len(text.encode()) for item in items for text in item.texts()) / max(1, work)
    return lambda size: advance(size * share)


def credit(scores: Any, gold: int) -> float:
    """1 if the gold is the only best of `scores` `[options]`, 1/k if it is one of k that tie, else 0."""
    best = _ties(scores, scores.max())
    return float(best[gold] / best.sum())


def rank(scores: Any, gold: int) -> float:
    """Place of the gold, 1 for the best; the mean place of those that tie with it."""
    ties = _ties(scores, scores[gold])
    return float(1 + ((scores > scores[gold]) & ~ties).sum() + (ties.sum() - 1) / 2)


def _ties(scores: Any, value: float) -> Any:
    return np.abs(scores - value) <= TIE * max(1.0, abs(value))


def shown_order(item: ChoiceItem, seed: int) -> tuple[str, ...]:
    """The options as they are listed: every order is equally likely, and that of the file plays no part."""
    return tuple(sorted(item.options, key=lambda option: hashlib.sha256(f"{seed}\n{item.id}\n{option}".encode()).digest()))


def shown_prompt(item: ChoiceItem, order: Sequence[str]) -> str:
    """Question, options under letters, and the cue in the item's language. Raises DataError for a language without one."""
    if item.language not in CUES:
        raise DataError(
            f"{item.where or item.id} has a prompt in language {item.language!r}, for which there is no cue to answer with a letter. "
            f"Known: {', '.join(CUES)}. State one of them in the data, or leave the rule out with --set shown=false."
        )
    question = item.prompt if item.question is None else item.question
    listed = [f"{letter}. {option.strip()}" for letter, option in zip(LETTERS, order, strict=False)]
    return "\n".join([*([question.rstrip()] if question.strip() else []), *listed, CUES[item.language]])


def letters(order: Sequence[str]) -> tuple[str, ...]:
    """What is scored after a shown prompt."""
    return tuple(f" {letter}" for letter in LETTERS[: len(order)])


def score_texts(
    model: WritingModel,
    items: Sequence[GenerativeItem],
    sampling: Sampling,
    advance: Advance,
    make_prompt: Callable[[GenerativeItem], Prompt] = lambda item: Prompt(item.id, item.prompt),
) -> list[ItemScore]:
    """Exact match of what the model writes, the mean over its samples; `contains` stands beside it and is no score of its own."""
    size = sum(len(text.encode()) for item in items for text in item.texts())
    prompts = [make_prompt(item) for item in items]
    share = size / max(1, sum(len(prompt.text.encode()) for prompt in prompts))
    written = model.generate(prompts, sampling, lambda done: advance(done * share))
    return [_text_score(item, samples) for item, samples in zip(items, written, strict=True)]


def _text_score(item: GenerativeItem, samples: Sequence[Generated]) -> ItemScore:
    answers = {normalise(answer, item.exact_case) for answer in item.answers}
    outputs = [normalise(sample.text, item.exact_case) for sample in samples]
    exact = float(np.mean([output in answers for output in outputs]))
    details = {
        "answers": list(item.answers),
        "written": [sample.text for sample in samples],
        "contains": float(np.mean([any(map(output_has(output), answers)) for output in outputs])),
        "gold_in_prompt": gold_in_prompt(item),
        "unfinished": sum(not sample.finished for sample in samples),
        "chance": 0.0,
    }
    return ItemScore({"exact": exact}, details)


def output_has(output: str) -> Callable[[str], bool]:
    """Whether an answer stands in `output` as whole words."""
    return lambda answer: re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", output) is not None


def normalise(text: str, exact_case: bool = False) -> str:
    """NFC, white space as one space, lower case unless told; without quotes, asterisks or backquotes around, or a full stop at the end."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    stripped = plain.strip("\"'`*“”‘’ ").removesuffix(".").strip("\"'`*“”‘’ ")
    found = stripped or plain
    return found if exact_case else found.casefold()
