"""A corpus that every Python brings along: the reference topics of `help()`, some 0.5 MB of English. For demos and tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nemo_ext.common.files import atomic_file


def python_topics() -> Iterator[tuple[str, str]]:
    """Topic name and text, sorted by name. The texts differ between Python versions."""
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def write_python_docs(path: Path | str) -> int:
    """Write the topics as JSONL with the fields `id` and `text`; returns the number of documents."""
    count = 0
    with atomic_file(path) as handle:
        for name, text in python_topics():
            handle.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            count += 1
    return count
