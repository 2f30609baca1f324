"""Texts cut into sentences, for models that are trained on pairs of them. Every character stays, white space with what it follows.

A sentence ends after . ! ? or … with closing quotes and brackets when white space follows, after their full-width forms, and at a line's
end. Abbreviations are not recognised: "Dr. Cruz" is two. For another rule, put one sentence on a line and train on such text.
"""

from __future__ import annotations

import re

SENTENCE_END = re.compile(r"""[.!?…]+["')\]»”’]*\s+|[。！？]+[」』”’）]*\s*|\n\s*""")


def sentences(text: str) -> list[str]:
    """The sentences; joined they are the text."""
    ends = [match.end() for match in SENTENCE_END.finditer(text) if match.start()]  # white space at the start belongs to what follows
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if start < end]
