"""Documents of many megabytes, parsed and handed on in pieces: beside the line itself, no copy of it is ever held.

Of a long line of JSON the long strings are taken out; what remains is parsed as usual and the strings are read piece by piece.
The result is that of `data_tools.documents` on the same line, which tests hold them to.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_tools.documents import (
    BROKEN_JSON,
    BYTE_ORDER_MARK,
    DIGEST_BYTES,
    EMPTY_TEXT,
    INVALID_UTF8,
    LONE_SURROGATE,
    Problem,
    from_fields,
    parse_fields,
)
from data_tools.lines import RawDocument

LONG_BYTES = 1 << 20  # a document from here on is long
LONG_STRING_BYTES = 1 << 16
LARGEST_REST_BYTES = 1 << 24  # what may remain of a line without its long strings: that is parsed at once, into many times its size
LINE_TOO_LARGE = "line-too-large"

STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL)


def piece_pattern(plain: int, count: int) -> re.Pattern[bytes]:
    """A part of the inside of a JSON string, up to `count` escapes or series of `plain` bytes; it never ends within a surrogate pair."""
    escapes = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^u]"
    return re.compile(rb"(?:[^\\]{1,%d}+|%b){1,%d}+" % (plain, escapes, count), re.DOTALL)


PIECE = piece_pattern(4096, 512)  # 2 MiB at most


class Span(NamedTuple):
    """Bytes [start, end) of a line: the inside of a JSON string, or with `escaped` false text as it is."""

    start: int
    end: int
    escaped: bool


@dataclass(frozen=True)
class LongDocument:
    """As a Document, with its text in pieces. They are read from `raw`, which has to stay as it is."""

    raw: bytes
    parts: list[Span | str]
    text_bytes: int
    number: int
    digest: bytes

    def pieces(self) -> Iterator[str]:
        """The text, once: when the last piece was read, a line in a bytearray is emptied, for what follows needs the room."""
        yield from _pieces(self.raw, self.parts)
        raw: Any = self.raw
        if isinstance(raw, bytearray):
            raw.clear()


def parse_long(source: RawDocument, text_field: str, id_field: str | None, separator: str) -> LongDocument | Problem:
    """The document in a long line or text file."""
    raw = source.raw
    if source.line == 0:
        return _measured(raw, [Span(len(BYTE_ORDER_MARK) if raw.startswith(BYTE_ORDER_MARK) else 0, len(raw), False)], None)
    taken_out = _without_long_strings(raw)
    if isinstance(taken_out, Problem):
        return taken_out
    rest, spans = taken_out
    fields = parse_fields(source._replace(raw=rest))
    found = fields if isinstance(fields, Problem) else from_fields(fields, text_field, id_field)
    if isinstance(found, Problem):
        return found
    texts: list[Span | str] = [spans.get(text, text) for text in found.texts if text]
    parts = [part for text in texts for part in (separator, text)][1:]
    try:
        for _ in _pieces(raw, list(spans.values())):  # also those that are not part of the text have to be right
            pass
        identity = "".join(_pieces(raw, [spans[found.identity]])) if found.identity in spans else found.identity
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return _problem(error)
    return _measured(raw, parts, identity)


def _measured(raw: bytes, parts: list[Span | str], identity: str | None) -> LongDocument | Problem:
    digest, size_bytes, has_text = hashlib.sha256(), 0, False
    try:
        for piece in _pieces(raw, parts):
            encoded = piece.encode("utf-8")
            digest.update(encoded)
            size_bytes += len(encoded)
            has_text = has_text or bool(piece.strip())
        key = digest.digest() if identity is None else hashlib.sha256(identity.encode("utf-8")).digest()
    except UnicodeEncodeError as error:
        return Problem(LONE_SURROGATE, f"half a surrogate pair (\\u{ord(error.object[error.start]):04x})")
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return _problem(error)
    if not has_text:
        return Problem(EMPTY_TEXT, "nothing but white space")
    return LongDocument(raw, parts, size_bytes, int.from_bytes(key[:8], "big"), digest.digest()[:DIGEST_BYTES])


def _without_long_strings(raw: bytes) -> tuple[bytes, dict[str, Span]] | Problem:
    """A line with every long string replaced by a short one of its own, and what each of those stands for."""
    kept, end, spans = bytearray(), 0, dict[str, Span]()
    with memoryview(raw) as view:
        for match in STRING.finditer(raw):
            start, stop = match.span()
            if not match[1]:
                return Problem(BROKEN_JSON, f"Unterminated string starting at byte {start + 1}")
            if stop - start >= LONG_STRING_BYTES:
                name = f"\0{hashlib.sha256(view[start:stop]).hexdigest()}"  # equal strings keep equal names
                spans[name] = Span(start + 1, stop - 1, True)
                kept += view[end:start]
                kept += json.dumps(name).encode()
                end = stop
        rest_bytes = len(kept) + len(raw) - end
        if rest_bytes > LARGEST_REST_BYTES:
            return Problem(LINE_TOO_LARGE, f"{rest_bytes:,} bytes besides long strings, at most {LARGEST_REST_BYTES:,} are parsed")
        kept += view[end:]
    return bytes(kept), spans


def _problem(error: UnicodeDecodeError | json.JSONDecodeError) -> Problem:
    if isinstance(error, UnicodeDecodeError):
        return Problem(INVALID_UTF8, f"in a long string: {error.reason}")
    return Problem(BROKEN_JSON, f"in a long string: {error.msg}")


def _pieces(raw: bytes, parts: Sequence[Span | str]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield from _span_pieces(raw, part)


def _span_pieces(raw: bytes, span: Span) -> Iterator[str]:
    """Raises UnicodeDecodeError and JSONDecodeError where the span is not what it should be."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), span.start
    while position < span.end:
        end = min(position + LONG_STRING_BYTES, span.end)
        if span.escaped:
            match = PIECE.match(raw, position, span.end)
            if match is None:
                raise json.JSONDecodeError("Invalid \\escape", "", 0)
            end = match.end()
        text = decoder.decode(raw[position:end], final=end == span.end)
        yield json.loads(f'"{text}"') if span.escaped else text
        position = end
