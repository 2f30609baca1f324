"""One line of JSON (or one text file) to a document, or to the reason why it is none. Policy is left to the caller."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any, NamedTuple

from data_tools.lines import RawDocument

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SNIPPET_CHARACTERS = 80
DIGEST_BYTES = 16
SEPARATOR = "\n\n"  # between several text fields
BLANK_LINE = "blank-line"  # no document and no mistake: counted, never an error

INVALID_UTF8 = "invalid-utf8"
BROKEN_JSON = "broken-json"
NOT_AN_OBJECT = "not-an-object"
DUPLICATE_KEY = "duplicate-key"
MISSING_TEXT = "missing-text"
TEXT_NOT_A_STRING = "text-not-a-string"
EMPTY_TEXT = "empty-text"
LONE_SURROGATE = "lone-surrogate"
BAD_ID = "bad-id"

JSON_TYPES = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class Document(NamedTuple):
    """Text, its length in UTF-8 bytes, a stable 64-bit number that places it in a split and keys its random choices, and a digest.

    `digest` are the first 16 bytes of the SHA-256 of the text.
    """

    text: str
    text_bytes: int
    number: int
    digest: bytes


class Problem(NamedTuple):
    """Why there is no document: a reason to count by, and the particulars."""

    reason: str
    detail: str


class _DuplicateKeyError(ValueError):
    pass


class Found(NamedTuple):
    """The strings in the text fields of an object, and its id when it has a field for that."""

    texts: list[str]
    identity: str | None


def parse(source: RawDocument, text_field: str, id_field: str | None, separator: str = SEPARATOR) -> Document | Problem:
    """The document in a line or text file. Of several text fields, "title,text", those that are not empty are joined by `separator`.

    Its number is the first 64 bits of the SHA-256 of its id: the value of `id_field` (a string or an integer), or without one the
    text itself. So equal texts have equal numbers and fall into the same split, whatever files and lines they came from.
    """
    if source.line == 0:
        text = _decode(source)
        return text if isinstance(text, Problem) else _document(text, None)
    fields = parse_fields(source)
    found = fields if isinstance(fields, Problem) else from_fields(fields, text_field, id_field)
    return found if isinstance(found, Problem) else _document(separator.join(filter(None, found.texts)), found.identity)


def parse_fields(source: RawDocument) -> dict[str, Any] | Problem:
    """The JSON object in a line."""
    line = _decode(source)
    if isinstance(line, Problem):
        return line
    if not line.strip():
        return Problem(BLANK_LINE, "")
    return _fields(line.rstrip("\r\n"))  # or an error at the end of the line would be placed on the next


def _decode(source: RawDocument) -> str | Problem:
    raw = source.raw.removeprefix(BYTE_ORDER_MARK) if source.line < 2 else source.raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem(INVALID_UTF8, f"byte {error.start + 1} is 0x{raw[error.start]:02x}: {error.reason}")


def _fields(line: str) -> dict[str, Any] | Problem:
    try:
        fields = json.loads(line, object_pairs_hook=_without_duplicates)
    except _DuplicateKeyError as error:
        return Problem(DUPLICATE_KEY, str(error))
    except json.JSONDecodeError as error:
        return Problem(BROKEN_JSON, f"{error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested thousands deep
        return Problem(BROKEN_JSON, str(error).partition(";")[0])
    if not isinstance(fields, dict):
        return Problem(NOT_AN_OBJECT, f"found {_json_type(fields)}")
    return fields


def from_fields(fields: dict[str, Any], text_field: str, id_field: str | None) -> Found | Problem:
    """What matters of an object."""
    texts = []
    for name in text_field.split(","):
        if name not in fields:
            return Problem(MISSING_TEXT, f"no field {name!r}; found {', '.join(map(repr, list(fields)[:8])) or 'no fields'}")
        if not isinstance(text := fields[name], str):
            return Problem(TEXT_NOT_A_STRING, f"field {name!r} holds {_json_type(text)}")
        texts.append(text)
    if id_field is None:
        return Found(texts, None)
    identity = fields.get(id_field)
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        return Problem(BAD_ID, f"field {id_field!r} holds {_json_type(identity) if id_field in fields else 'nothing, it is missing'}")
    return Found(texts, str(identity))


def _document(text: str, identity: str | None) -> Document | Problem:
    if not text.strip():
        return Problem(EMPTY_TEXT, "nothing but white space" if text else "no characters")
    try:
        encoded = text.encode("utf-8")
        key = encoded if identity is None else identity.encode("utf-8")
    except UnicodeEncodeError as error:
        return Problem(LONE_SURROGATE, f"half a surrogate pair (\\u{ord(error.object[error.start]):04x}) at character {error.start + 1}")
    digest = hashlib.sha256(encoded).digest()
    number = int.from_bytes((digest if identity is None else hashlib.sha256(key).digest())[:8], "big")
    return Document(text, len(encoded), number, digest[:DIGEST_BYTES])


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _DuplicateKeyError(f"{next(name for name, count in counts.items() if count > 1)!r} occurs more than once in an object")
    return fields


def _json_type(value: Any) -> str:
    if value == "":
        return "an empty string"
    return JSON_TYPES[type(value)]


def snippet(raw: bytes) -> str:
    """The beginning of a line, printable and short."""
    text = raw[: 4 * SNIPPET_CHARACTERS].decode("utf-8", errors="backslashreplace").strip()
    shown = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text[:SNIPPET_CHARACTERS])
    return shown + ("..." if len(text) > SNIPPET_CHARACTERS else "")


def field_names(text_field: str, id_field: str | None) -> tuple[str, ...]:
    """The fields of a JSON object that matter."""
    return tuple(text_field.split(",")) + (() if id_field is None else (id_field,))
