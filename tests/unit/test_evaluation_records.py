"""Records of JSONL files: which files are read, and what a record is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.records import read_records
from nemo_ext.common.errors import DataError


def write(path: Path, text: str = '{"x": 1}\n') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_hidden_files_and_what_lies_in_hidden_folders_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "data"  # the folder that is named may lie in a hidden one
    for name in ("a.jsonl", ".b.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl", "part/c.jsonl"):
        write(folder / name)
    assert [record.name for record in read_records(folder)] == ["a.jsonl:1", "part/c.jsonl:1"]


def test_a_record_is_called_by_its_id_or_else_by_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": 7}\r\n{"id": null}\n\n{}\n{"id": "x"}')
    assert [record.id for record in read_records(path)] == ["7", "a.jsonl:2", "a.jsonl:4", "x"]
    (record,) = read_records(write(tmp_path / "b.jsonl", '{"id": "\\ud800"}\n'))
    with pytest.raises(DataError, match=r"b\.jsonl:1 has a lone surrogate"):
        assert record.id
