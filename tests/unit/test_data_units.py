"""Units cover every line of the inputs once, whatever their size, and count lines as the file does."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import units
from data_tools.inputs import FoundInputs, find_inputs
from data_tools.lines import RawDocument
from data_tools.units import PartReader, batches, line_number, plan_units

LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b" ")), max_size=25)


def read_all(inputs: FoundInputs) -> list[tuple[int, int, bytes]]:
    """File, number in the file and bytes of every line, as the units give them."""
    found = []
    for unit in plan_units(inputs):
        for part in unit.parts:
            reader = PartReader(inputs.files[part.file], part, ())
            for source in reader:
                found.append((part.file, line_number(inputs.files[part.file], part, source.line), bytes(source.raw)))
            assert reader.bytes_read == part.size_bytes
    return found


@given(st.lists(LINES, min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 40), st.booleans())
def test_units_hold_every_line_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[bytes]], unit_bytes: int, read_bytes: int, ends: bool
) -> None:
    folder = tmp_path_factory.mktemp("units")
    expected = []
    for number, lines in enumerate(files):
        stored = b"\n".join(lines) + (b"\n" if ends and lines else b"")
        zipped = number % 2 == 1
        (folder / f"{number}.jsonl{'.gz' if zipped else ''}").write_bytes(gzip.compress(stored) if zipped else stored)
        kept = stored.removesuffix(b"\n").split(b"\n") if stored else []
        expected += [(number, place, line) for place, line in enumerate(kept, start=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", unit_bytes)
        patch.setattr(units, "READ_BYTES", read_bytes)
        assert read_all(find_inputs([str(folder)])) == expected


def test_units_are_bounded_in_size_and_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x\n" * 5000)
    monkeypatch.setattr(units, "UNIT_BYTES", 100)
    assert {unit.size_bytes for unit in plan_units(find_inputs([str(tmp_path)]))} == {100}
    monkeypatch.setattr(units, "MOST_UNITS", 10)
    assert [unit.size_bytes for unit in plan_units(find_inputs([str(tmp_path)]))] == [1000] * 10


def test_many_small_files_share_a_unit(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.txt").write_bytes(b"text")
    plan = plan_units(find_inputs([str(tmp_path)]))
    assert [len(unit.parts) for unit in plan] == [50]


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_batches_are_bounded_and_long_documents_stand_alone(sizes: list[int], most: int) -> None:
    documents = [RawDocument(0, number, b"x" * size) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "BATCH_BYTES", most)
        found = list(batches(iter(documents)))
    assert [document for batch in found for document in batch] == documents
    assert all(len(batch) == 1 or sum(len(document.raw) for document in batch) <= most for batch in found)
