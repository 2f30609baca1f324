"""LangGame: which of four words has the most of a letter, contains, starts or ends with a string, is the longest, is the shortest?

Data: `langgame_{mcq, gen}.jsonl` of StochasTok's LangGame as PACUTE publishes it, or of `sibol evaluate generate`: `question`, `answer`
and, for multiple choice, `options`. The right one is told by its value: the published files always list it first, ours anywhere. The
words stand in every question, so the right answer always stands in the prompt.
"""

from __future__ import annotations

from typing import Any

from evaluation.choice import Item
from evaluation.records import Record
from evaluation.suites.published import PublishedSuite, question_item


class LangGame(PublishedSuite):
    """The suite, see the module's text for the definition."""

    name = "langgame"
    version = 1
    files = ("langgame",)

    def item(self, record: Record, family: str, chosen: Any) -> Item:
        """The item of a line; its language is that of the cue at the end of the question."""
        return question_item(record, family or self.name)


SUITE = LangGame()
