"""Multi-digit addition: the sum of two numbers, chosen or written.

Data: `multi_digit_addition_{mcq, gen}.jsonl` as PACUTE publishes them, or of `sibol evaluate generate`: `question` ("295+592="),
`answer` in usual order, and, for multiple choice, `options`. Free answers must be the sum and nothing else on their line.
"""

from __future__ import annotations

from typing import Any

from evaluation.choice import Item
from evaluation.records import Record
from evaluation.suites.published import PublishedSuite, question_item


class Addition(PublishedSuite):
    """The suite, see the module's text for the definition."""

    name = "addition"
    version = 1
    files = ("multi_digit_addition",)

    def item(self, record: Record, family: str, chosen: Any) -> Item:
        """The item of a line."""
        return question_item(record, family or self.name)


SUITE = Addition()
