"""A long line gives the document, or the reason why it is none, that it would give if it were short."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import long_documents
from data_tools.documents import Document, Problem, parse
from data_tools.lines import RawDocument
from data_tools.long_documents import LongDocument, parse_long, piece_pattern

SEPARATOR = " | "
ANY_TEXT = st.text(max_size=60)  # lone surrogates included
VALUES = st.one_of(ANY_TEXT, st.none(), st.integers(), st.lists(ANY_TEXT, max_size=2), st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=2))


@pytest.fixture(autouse=True, scope="module")
def short_is_long() -> Iterator[None]:
    """Strings of 12 bytes are taken out and read in pieces of a few, so that small examples go every way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_documents, "LONG_STRING_BYTES", 12)
        patch.setattr(long_documents, "PIECE", piece_pattern(3, 2))
        yield


def both(
    raw: bytes, text_field: str = "text", id_field: str | None = None, line: int = 1
) -> tuple[Document | Problem, LongDocument | Problem]:
    source = RawDocument(0, line, raw)
    return parse(source, text_field, id_field, SEPARATOR), parse_long(source, text_field, id_field, SEPARATOR)


def assert_alike(short: Document | Problem, long: LongDocument | Problem) -> None:
    if isinstance(short, Problem):
        assert isinstance(long, Problem) and long.reason == short.reason, (short, long)
    else:
        assert isinstance(long, LongDocument), (short, long)
        assert "".join(long.pieces()) == short.text
        assert (long.text_bytes, long.number, long.digest) == (short.text_bytes, short.number, short.digest)


@given(st.dictionaries(st.sampled_from(["text", "title", "id", "other"]), VALUES), st.booleans(), st.sampled_from([None, "id"]))
def test_every_object_is_read_alike(fields: dict[str, object], ascii_only: bool, id_field: str | None) -> None:
    raw = json.dumps(fields, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert_alike(*both(raw, "title,text", id_field))


@given(ANY_TEXT.map(lambda text: text * 3), st.data())
def test_every_damage_to_a_line_is_found(text: str, data: st.DataObject) -> None:
    raw = bytearray(json.dumps({"text": text, "more": text}).encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    short, long = both(bytes(raw))
    same_kind = isinstance(short, Problem) == isinstance(long, Problem)
    assert same_kind, (short, long)
    if not isinstance(short, Problem):
        assert_alike(short, long)


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_text_files_are_read_alike(raw: bytes) -> None:
    assert_alike(*both(raw, line=0))


def test_equal_names_are_found_however_long() -> None:
    name = "n" * 40
    short, long = both(f'{{"{name}": 1, "{name}": 2, "text": "a"}}'.encode())
    assert isinstance(short, Problem) and isinstance(long, Problem) and short.reason == long.reason == "duplicate-key"


def test_a_string_without_end_is_found_in_linear_time() -> None:
    problem = both(b'{"text": "' + b'\\"a' * 200_000)[1]
    assert isinstance(problem, Problem) and problem.reason == "broken-json"


def test_a_line_that_is_large_without_long_strings_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_documents, "LARGEST_REST_BYTES", 1000)
    problem = both(json.dumps({"text": "a", "numbers": list(range(1000))}).encode())[1]
    assert isinstance(problem, Problem) and problem.reason == "line-too-large"
