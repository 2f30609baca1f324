"""Documents from files and datasets: the same texts in, the same texts out, and errors that name file and line."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from evaluation.documents import open_documents
from evaluation.indexed import read_documents
from nemo_ext.common.errors import ConfigError, DataError

TEXTS = ["Isang dahon.", "Ñandú 🌱 two\nlines", "three"]


def write_jsonl(path: Path, records: list[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_jsonl_gives_texts_ids_domains_and_counts_bytes_of_utf8(tmp_path: Path) -> None:
    records = [{"text": TEXTS[0], "id": 7, "domain": "leaf"}, {"text": TEXTS[1]}, {"text": ""}]
    documents = open_documents(write_jsonl(tmp_path / "a.jsonl", records))
    assert [(d.id, d.text, d.domain) for d in documents] == [("7", TEXTS[0], "leaf"), ("a.jsonl:2", TEXTS[1], None)]
    assert (documents.documents, documents.empty_documents) == (2, 1)
    assert documents.bytes == len("".join(TEXTS[:2]).encode())


def test_the_same_texts_have_the_same_digest_as_jsonl_gzip_and_folder_of_text_files(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", [{"body": text} for text in TEXTS])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    opened = [
        open_documents(plain, text_field="body"),
        open_documents(tmp_path / "b.jsonl.gz", text_field="body"),
        open_documents(folder),
    ]
    assert len({documents.sha256 for documents in opened}) == 1
    assert [document.text for document in opened[2]] == TEXTS
    other = open_documents(write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in reversed(TEXTS)]))
    assert other.sha256 != opened[0].sha256


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"text": "a"\n', r"bad\.jsonl:2 is not valid JSON"),
        (b'{"text": ' + b"7" * 5000 + b"}\n", r"bad\.jsonl:2 cannot be read \(Exceeds the limit"),
        (b'["text"]\n', r"bad\.jsonl:2 holds list, expected a JSON object"),
        (b'{"body": "a"}\n', r"bad\.jsonl:2 has no text in field 'text' \(found fields body\).*--text-field"),
        (b'{"text": 3}\n', r"bad\.jsonl:2 has no text"),
        (b'{"text": "\xff"}\n', r"bad\.jsonl:2 is not UTF-8"),
        (b'{"text": "\\ud800"}\n', r"bad\.jsonl:2 has a lone surrogate"),
        (b'{"text": "a", "domain": 1}\n', r"bad\.jsonl:2 has a domain that is not a string: 1"),
    ],
)
def test_a_bad_line_is_refused_with_its_place(tmp_path: Path, line: bytes, complaint: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "fine"}\n' + line)
    with pytest.raises(DataError, match=complaint):
        open_documents(tmp_path / "bad.jsonl")


def test_paths_that_hold_no_text_are_refused_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing does not exist"):
        open_documents(tmp_path / "missing")
    with pytest.raises(DataError, match=r"has nothing to read in it. Expected a Sibol dataset"):
        open_documents(tmp_path)
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match=r"has the ending '.csv'"):
        open_documents(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"no text to score \(1 empty documents\)"):
        open_documents(write_jsonl(tmp_path / "empty.jsonl", [{"text": ""}]))
    with pytest.raises(ConfigError, match=r"--split test was given.*no splits"):
        open_documents(write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}]), split="test")


def write_indexed(prefix: Path, sequences: list[list[int]], starts: list[int], dtype: type, code: int) -> None:
    """An indexed dataset by the letter of Megatron's `_IndexWriter`."""
    arrays = [np.array(sequence, dtype=dtype) for sequence in sequences]
    Path(f"{prefix}.bin").write_bytes(b"".join(array.tobytes() for array in arrays))
    lengths = np.array([len(array) for array in arrays], dtype=np.int32)
    pointers = (np.cumsum(lengths) - lengths).astype(np.int64) * np.dtype(dtype).itemsize
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(arrays), len(starts))
    Path(f"{prefix}.idx").write_bytes(header + lengths.tobytes() + pointers.tobytes() + np.array(starts, dtype=np.int64).tobytes())


@pytest.mark.parametrize(("dtype", "code"), [(np.uint16, 8), (np.int32, 4)])
def test_documents_of_an_indexed_dataset_are_joined_from_their_sequences(tmp_path: Path, dtype: type, code: int) -> None:
    write_indexed(tmp_path / "d", [[1, 2], [3], [4, 5, 60000]], [0, 2, 2, 3], dtype, code)
    assert [ids.tolist() for ids in read_documents(tmp_path / "d")] == [[1, 2, 3], [], [4, 5, 60000]]


def test_damaged_indexed_files_are_refused_with_both_sizes(tmp_path: Path) -> None:
    write_indexed(tmp_path / "d", [[1, 2], [3]], [0, 1, 2], np.uint16, 8)
    whole = (tmp_path / "d.bin").read_bytes()
    (tmp_path / "d.bin").write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"d\.bin is damaged: 4 bytes found, 6 expected"):
        next(read_documents(tmp_path / "d"))
    (tmp_path / "d.bin").write_bytes(whole)
    index = (tmp_path / "d.idx").read_bytes()
    (tmp_path / "d.idx").write_bytes(index[:-1])
    with pytest.raises(DataError, match=r"d\.idx is damaged: 81 bytes found, 82 expected"):
        next(read_documents(tmp_path / "d"))
    (tmp_path / "d.idx").write_bytes(b"not an index" * 5)
    with pytest.raises(DataError, match=r"d\.idx is not the index"):
        next(read_documents(tmp_path / "d"))
    (tmp_path / "d.idx").unlink()
    with pytest.raises(DataError, match=r"d\.idx is missing"):
        next(read_documents(tmp_path / "d"))
