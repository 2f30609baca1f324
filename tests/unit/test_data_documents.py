"""A line is a document or has a named reason why it is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.documents import Document, Problem, parse, snippet
from data_tools.lines import RawDocument

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"])).filter(lambda text: text.strip())


def parsed(raw: bytes, id_field: str | None = None, line: int = 1) -> Document | Problem:
    return parse(RawDocument(0, line, raw), "text", id_field)


@given(TEXT, st.booleans())
def test_text_of_any_characters_arrives_unchanged_with_its_size_in_utf8(text: str, ascii_only: bool) -> None:
    document = parsed(json.dumps({"text": text}, ensure_ascii=ascii_only).encode())
    assert isinstance(document, Document)
    assert document.text == text
    assert document.text_bytes == len(text.encode())


@given(TEXT)
def test_equal_texts_have_equal_numbers_wherever_they_stand(text: str) -> None:
    first = parsed(json.dumps({"text": text, "source": 1}).encode())
    second = parsed(json.dumps({"source": 2, "text": text}).encode(), line=99)
    whole_file = parse(RawDocument(5, 0, text.removeprefix("\ufeff").encode()), "text", None)
    assert isinstance(first, Document) and isinstance(second, Document) and isinstance(whole_file, Document)
    assert first.number == second.number
    assert text.startswith("\ufeff") or whole_file.number == first.number


def test_the_number_of_a_document_never_changes_between_versions() -> None:
    document = parsed(b'{"text": "sibol"}')
    assert isinstance(document, Document)
    assert document.number == 0xB31FBAE5C0F244CA  # printf sibol | sha256sum


def test_an_id_field_decides_the_number_and_integers_equal_their_spelling() -> None:
    by_string = parsed(b'{"text": "a", "id": "7"}', "id")
    by_integer = parsed(b'{"text": "b", "id": 7}', "id")
    assert isinstance(by_string, Document) and isinstance(by_integer, Document)
    assert by_string.number == by_integer.number


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b'{"text": "a"', "broken-json", "column 13"),
        (b'{"text": "a"\r\n', "broken-json", "column 13"),
        (b"text", "broken-json", "column 1"),
        (b'{"text": "a"} {"text": "b"}', "broken-json", "Extra data"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "broken-json", "digits"),
        (b"[" * 200_000, "broken-json", "recursion"),
        (b'["text"]', "not-an-object", "a list"),
        (b'"text"', "not-an-object", "a string"),
        (b'{"Text": "a"}', "missing-text", "'Text'"),
        (b"{}", "missing-text", "no fields"),
        (b'{"text": null}', "text-not-a-string", "null"),
        (b'{"text": ["a"]}', "text-not-a-string", "a list"),
        (b'{"text": ""}', "empty-text", "no characters"),
        (b'{"text": " \\n "}', "empty-text", "white space"),
        (b'{"text": "a\\ud800"}', "lone-surrogate", "\\ud800"),
        (b'{"text": "a\xff"}', "invalid-utf8", "byte 12 is 0xff"),
        (b'{"text": "a", "text": "b"}', "duplicate-key", "'text'"),
        (b'{"text": "a", "meta": {"k": 1, "k": 1}}', "duplicate-key", "'k'"),
        (b'{"text": "a", ' + b"".join(b'"%d": 1, ' % number for number in range(50_000)) + b'"49999": 1}', "duplicate-key", "'49999'"),
        (b" \n", "blank-line", ""),
    ],
)
def test_every_kind_of_bad_line_has_its_reason_and_particulars(raw: bytes, reason: str, detail: str) -> None:
    problem = parsed(raw)
    assert isinstance(problem, Problem), problem
    assert problem.reason == reason
    assert detail in problem.detail


@pytest.mark.parametrize("identity", ["null", "true", '""', "1.5", "[]"])
def test_an_id_that_is_no_string_or_integer_is_a_bad_line(identity: str) -> None:
    problem = parsed(b'{"text": "a", "id": ' + identity.encode() + b"}", "id")
    assert isinstance(problem, Problem) and problem.reason == "bad-id"


def test_a_missing_id_is_a_bad_line() -> None:
    problem = parsed(b'{"text": "a"}', "id")
    assert isinstance(problem, Problem) and (problem.reason, "missing" in problem.detail) == ("bad-id", True)


def test_a_byte_order_mark_is_passed_over_at_the_start_of_a_file_only() -> None:
    assert isinstance(parsed(b'\xef\xbb\xbf{"text": "a"}'), Document)
    assert parsed(b"\xef\xbb\xbfa", line=0) == parsed(b"a", line=0)
    assert isinstance(parsed(b'\xef\xbb\xbf{"text": "a"}', line=2), Problem)


def test_a_snippet_is_short_and_printable() -> None:
    shown = snippet(b"\x1b[31m\xff" + b"x" * 500 + b"\n")
    assert shown.startswith("\\x1b[31m\\xff") and shown.endswith("...") and len(shown) < 100
