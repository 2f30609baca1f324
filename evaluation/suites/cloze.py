"""Cloze: which word fills the blank?

Data: JSONL with `text`, in which the blank is `___` (or what `--set blank=` says), the right `answer`, and, where the answer is to be
chosen, `options`; `id`, `category` and `language` where they are known. The blank stands for the answer alone; white space around it is
text. A text without a blank has it at its end, after a space, so that LAMBADA's last word is `{"text": "... said", "answer": "Gabriel"}`.

With options: the text is scored with each of them filled in. A causal model scores the option and what follows it, a masked model the
option in the sight of both sides; `accuracy` is of the sum, `accuracy_byte` of the sum per byte.
Without options, the answer must be what the model would write, token by token: `rank` is 1 + the most tokens that were likelier than
one of the answer's, and the score is 1 where it is 1. A causal model sees only what stands before the blank, so for the answer to have
a chance the blank must be at the end; a text that goes on is scored, and counted in a warning. A masked model sees both sides, and of the
answer the tokens before the one it must give, never those after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.choice import ChoiceItem, ChoiceItems, GenerativeItem, Item, gold_in_prompt
from evaluation.choice_scoring import ItemScore
from evaluation.choice_suite import ChoiceOptions, ChoiceSuite
from evaluation.choice_summary import ChoiceScores
from evaluation.forward import Advance
from evaluation.masked import MaskedModel
from evaluation.models import Question
from evaluation.records import Record, read_records
from evaluation.suites import Settings, Summary
from nemo_ext.common.errors import DataError


@dataclass(frozen=True)
class ClozeOptions(ChoiceOptions):
    """blank: what stands in the text where the answer goes. language: of texts whose record does not say it."""

    shown: bool = False
    blank: str = "___"
    language: str = ""


class Cloze(ChoiceSuite):
    """The suite, see the module's text for the definition."""

    name = "cloze"
    version = 1
    rule = "sum"
    options = ClozeOptions

    def read_items(self, path: Path, settings: Settings) -> Iterator[Item]:
        """Texts of all files, in order."""
        chosen = self.chosen(settings)
        return (_item(record, chosen) for record in read_records(path))

    def score(self, model: Any, items: ChoiceItems, settings: Settings, advance: Advance) -> ChoiceScores:
        """Scores of all items, each with the reciprocal of its rank: among the options, or in the vocabulary."""
        found = super().score(model, items, settings, advance)
        ranked = [
            replace(
                score,
                details=score.details | {"reciprocal_rank": 1 / score.details["rank"].get(self.rule, score.details["rank"].get("exact"))},
            )
            for score in found.scores
        ]
        return replace(found, scores=ranked)

    def summarise(self, scores: Sequence[ChoiceScores], settings: Settings) -> Summary:
        """Accuracy and reciprocal rank; what a causal model could not see is counted."""
        summary = super().summarise(scores, settings)
        for label, one in zip(("model", "baseline"), scores, strict=False):
            unseen = sum(score.details.get("unseen_text", False) for score in one.scores)
            if unseen:
                summary.warnings.append(
                    f"The {label} is causal and was not shown what follows the blank in {unseen:,} of {len(one.scores):,} items "
                    "without options."
                )
        return summary

    def _write(self, model: Any, texts: Sequence[GenerativeItem], settings: Settings, advance: Advance) -> list[ItemScore]:
        """Whether the model would have written the answer, from its rank at every token instead of from text."""
        both_sides = isinstance(model, MaskedModel)
        questions = [Question(item.id, item.prompt, item.answers, item.after if both_sides else "") for item in texts]
        results = []
        for item, (score,) in zip(texts, model.option_scores(questions, advance, ranked=True), strict=True):
            details = {
                "answers": list(item.answers),
                "log_likelihood": score.log_likelihood,
                "rank": {"exact": score.rank},
                "tokens": score.tokens,
                "unseen_text": bool(item.after.strip()) and not both_sides,
                "unknown_tokens": score.unknown_tokens,
                "gold_in_prompt": gold_in_prompt(item),
                "chance": item.chance,
            }
            results.append(ItemScore({"exact": float(score.is_greedy)}, details))
        return results


SUITE = Cloze()


def _item(record: Record, chosen: ClozeOptions) -> Item:
    text, answer = record.text("text"), record.text("answer")
    if text.count(chosen.blank) > 1:
        raise DataError(
            f"{record.place} has {text.count(chosen.blank)} blanks {chosen.blank!r}, expected at most 1. Mend or split the item."
        )
    before, blank, after = text.partition(chosen.blank)
    if len(set(chosen.blank)) == 1 and after.startswith(chosen.blank[0]):  # the rest of a longer blank would be scored as text
        raise DataError(f"{record.place} has a blank longer than {chosen.blank!r}. Say how long blanks are with --set blank=, or mend it.")
    if not blank and not text[-1:].isspace():
        before += " "
    known = {name: record.text(name) for name in ("category", "language", "cluster") if name in record.fields}
    common: dict[str, Any] = {"id": record.id, "prompt": before, "after": after, "where": record.place}
    common |= {"language": chosen.language} | known
    if "options" in record.fields:
        return ChoiceItem(**common, options=record.texts("options"), gold=answer, question=text, space=False)
    return GenerativeItem(**common, answers=(answer,))
