"""A corpus that every Python brings along: the reference topics of `help()`, some 0.4 MB of English. For demos and tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nemo_ext.common.files import atomic_file

PIECE_CHARACTERS = 2000


def python_topics() -> Iterator[tuple[str, str]]:
    """Name and text of passages of about 2,000 characters, in order of the topics' names.

    Topics repeat whole sections of each other; a paragraph is kept where it comes first only, so that no text of a
    held-out passage can have been trained on. The texts differ between Python versions.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for name, text in sorted(topics.items()):
        fresh = [paragraph for paragraph in text.split("\n\n") if paragraph.strip() and paragraph not in seen]
        fresh = list(dict.fromkeys(fresh))
        seen.update(fresh)
        yield from _passages(name, fresh)


def _passages(name: str, paragraphs: list[str]) -> Iterator[tuple[str, str]]:
    piece: list[str] = []
    number = 0
    for paragraph in paragraphs:
        piece.append(paragraph)
        if sum(map(len, piece)) >= PIECE_CHARACTERS:
            yield f"{name}/{number}", "\n\n".join(piece)
            piece, number = [], number + 1
    if piece:
        yield f"{name}/{number}", "\n\n".join(piece)


def write_python_docs(path: Path | str) -> int:
    """Write the passages as JSONL with the fields `id` and `text`; returns their number."""
    count = 0
    with atomic_file(path) as handle:
        for name, text in python_topics():
            handle.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            count += 1
    return count
