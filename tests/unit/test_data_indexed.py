"""What the writer stores, the reader gives back; files that do not fit are refused."""

from __future__ import annotations

import hashlib
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.indexed import IndexedFiles, IndexedReader, IndexedWriter
from nemo_ext.common.errors import DataError, DiskFullError
from nemo_ext.common.files import disk_errors

DOCUMENTS = st.lists(st.lists(st.integers(0, 65_000), max_size=30), max_size=20)


def write(prefix: Path, documents: list[list[int]], dtype: type = np.uint16, batch: int = 3) -> IndexedFiles:
    with IndexedWriter(prefix, np.dtype(dtype)) as writer:
        for start in range(0, len(documents), batch):
            part = documents[start : start + batch]
            writer.add(np.array(list(chain.from_iterable(part)), dtype=dtype), np.array([len(document) for document in part]))
        return writer.finish()


@given(DOCUMENTS, st.sampled_from([np.uint16, np.int32]), st.integers(1, 5))
def test_documents_come_back_and_batches_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], dtype: type, batch: int
) -> None:
    folder = tmp_path_factory.mktemp("indexed")
    files = write(folder / "a", documents, dtype, batch)
    assert files == write(folder / "b", documents, dtype, batch=100)
    reader = IndexedReader(folder / "a")
    assert [reader.sequence(number).tolist() for number in range(len(reader))] == documents
    assert reader.dtype == dtype


def test_the_report_tells_counts_sizes_and_digests_of_the_files(tmp_path: Path) -> None:
    files = write(tmp_path / "a", [[5, 6], [], [9]])
    stored = {suffix: (tmp_path / f"a.{suffix}").read_bytes() for suffix in ("bin", "idx")}
    assert (files.documents, files.tokens, files.max_token_id) == (3, 3, 9)
    assert (files.bin_bytes, files.idx_bytes) == (len(stored["bin"]), len(stored["idx"])) == (6, 34 + 3 * 12 + 4 * 8)
    assert files.bin_sha256 == hashlib.sha256(stored["bin"]).hexdigest()
    assert files.idx_sha256 == hashlib.sha256(stored["idx"]).hexdigest()


@pytest.mark.parametrize("suffix", ["bin", "idx"])
@pytest.mark.parametrize("change", [-1, 1])
def test_truncated_or_lengthened_files_are_refused_with_both_sizes(tmp_path: Path, suffix: str, change: int) -> None:
    write(tmp_path / "a", [[1, 2, 3], [4]])
    path = tmp_path / f"a.{suffix}"
    size = path.stat().st_size
    os.truncate(path, size + change)
    with pytest.raises(DataError, match=rf"{path}.*{size + change} bytes found.* {size}"):
        IndexedReader(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"short", b"X" * 200])
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "a", [[1]])
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.idx is not the index of a token dataset"):
        IndexedReader(tmp_path / "a")


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1]])
    (tmp_path / "a.bin").unlink()
    with pytest.raises(DataError, match=r"a\.bin not found"):
        IndexedReader(tmp_path / "a")


def test_a_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.bin").symlink_to("/dev/full")  # every write to it fails with ENOSPC, as on a full file system
    with pytest.raises(DiskFullError, match=r"No space left while writing .*then run the same command again"), disk_errors(tmp_path):
        write(tmp_path / "a", [[1] * 10_000])
