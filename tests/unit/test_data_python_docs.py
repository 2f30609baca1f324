"""The demo's corpus holds no paragraph twice, so held-out passages are new to the model."""

from __future__ import annotations

from collections import Counter

from data_tools.python_docs import python_topics


def test_no_paragraph_occurs_twice() -> None:
    paragraphs = Counter(paragraph for _, text in python_topics() for paragraph in text.split("\n\n"))
    assert paragraphs.total() > 1000
    assert max(paragraphs.values()) == 1


def test_passages_have_names_of_their_own_and_are_many() -> None:
    names = [name for name, _ in python_topics()]
    assert len(names) == len(set(names)) > 100
    assert sum(len(text) for _, text in python_topics()) > 200_000
