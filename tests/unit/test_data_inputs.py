"""Inputs are found in a fixed order, read once, and damage is never the end of a file."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_tools.bad_lines import BadLines
from data_tools.inputs import FoundInputs, find_inputs, open_input
from data_tools.lines import LineReader
from nemo_ext.common.errors import ConfigError, DataError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def lines_of(*arguments: str) -> list[bytes]:
    return [document.raw for batch in LineReader(find_inputs(arguments)) for document in batch.documents]


def test_folders_are_walked_in_order_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in ("b/two.jsonl", "a/one.txt", "b/three.ndjson.gz", "b/notes.md", ".hidden/four.jsonl", "b/.part.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_inputs([str(tmp_path)])
    assert [str(file.path.relative_to(tmp_path)) for file in found.files] == ["a/one.txt", "b/three.ndjson.gz", "b/two.jsonl"]
    assert [file.is_text for file in found.files] == [True, False, False]
    assert found.skipped == {"file-of-another-kind": 1}


def test_a_prepared_dataset_within_a_folder_is_not_taken_for_text(tmp_path: Path) -> None:
    (tmp_path / "set" / "tokenizer").mkdir(parents=True)
    for name in ("set/manifest.json", "set/train.idx", "set/tokenizer/merges.txt", "set/quarantine.jsonl", "real.txt"):
        (tmp_path / name).write_text("x")
    found = find_inputs([str(tmp_path)])
    assert [file.path.name for file in found.files] == ["real.txt"]
    assert found.skipped == {"file-of-a-prepared-dataset": 4}


def test_patterns_match_several_files_in_order(tmp_path: Path) -> None:
    for name in ("2.jsonl", "1.jsonl", "1.txt"):
        (tmp_path / name).write_text("")
    assert [file.path.name for file in find_inputs([f"{tmp_path}/*.jsonl"]).files] == ["1.jsonl", "2.jsonl"]


@pytest.mark.parametrize("pattern", ["part*", "**", "**/"])
def test_folders_that_a_pattern_matches_are_walked(tmp_path: Path, pattern: str) -> None:
    for name in ("part1/a.jsonl", "part1/inner/b.txt", "part2/c.jsonl", "part2/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = find_inputs([f"{tmp_path}/{pattern}"])
    assert [file.path.name for file in found.files] == ["a.jsonl", "b.txt", "c.jsonl"]
    assert found.skipped == {"file-of-another-kind": 1}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing.jsonl", "Input not found: .*missing.jsonl.*check the path"),
        ("*.jsonl", "No file matches the pattern"),
        ("table.csv", "table.csv is of an unknown kind. Expected .jsonl"),
        ("empty", "No input files in"),
    ],
)
def test_arguments_without_files_are_refused(tmp_path: Path, argument: str, message: str) -> None:
    (tmp_path / "table.csv").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        find_inputs([str(tmp_path / argument)])


def test_a_file_named_twice_is_refused_because_it_would_count_double(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(DataError, match="named twice"):
        find_inputs([str(tmp_path), str(tmp_path / "a.jsonl")])


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_give_the_same_lines_and_the_digest_of_the_file_on_disk(tmp_path: Path, suffix: str) -> None:
    lines = [b"line %d\n" % number for number in range(30_000)] + [b"last without end"]
    stored = COMPRESS[suffix](b"".join(lines))
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(stored)
    reader = LineReader(find_inputs([str(path)]))
    assert [document.raw for batch in reader for document in batch.documents] == lines
    assert reader.digests == [{"path": str(path), "bytes": len(stored), "sha256": hashlib.sha256(stored).hexdigest()}]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_compressed_members_are_one_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b"one\n") + COMPRESS[suffix](b"") + COMPRESS[suffix](b"two\n"))
    assert lines_of(str(path)) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "not compressed"])
def test_damaged_compressed_files_are_errors_and_not_shorter_files(tmp_path: Path, suffix: str, damage: str) -> None:
    stored = COMPRESS[suffix](b"".join(b"%d\n" % (number * 7919) for number in range(20_000)))
    middle = len(stored) // 2
    broken = {
        "truncated": stored[:middle],
        "altered": stored[:middle] + bytes(byte ^ 0xFF for byte in stored[middle : middle + 40]) + stored[middle + 40 :],
        "not compressed": b"plain text",
    }
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match=r"a\.jsonl.* is damaged after .* of its .* bytes"):
        lines_of(str(path))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_only_newlines_end_lines(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    content = b"\n".join(pieces)
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(content)
    lines = lines_of(str(path))
    assert b"".join(lines) == content
    assert all(b"\n" not in line[:-1] for line in lines)


def test_batches_are_bounded_by_bytes_and_text_files_share_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_tools.lines.BATCH_BYTES", 100)
    for number in range(10):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * 30)
    sizes = [len(batch.documents) for batch in LineReader(find_inputs([str(tmp_path)]))]
    assert sizes == [4, 4, 2]


def test_reading_counts_bytes_on_disk_up_to_the_size_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"x\n" * 1000))
    (tmp_path / "b.jsonl").write_bytes(b"y\n" * 10)
    found = find_inputs([str(tmp_path)])
    assert [batch.bytes_read for batch in LineReader(found)][-1] == found.size_bytes
    with open_input(found.files[0]) as (stream, counting):
        assert stream.read(2) == b"x\n" and counting.bytes_read == found.files[0].size_bytes


def test_an_unknown_policy_for_bad_lines_is_refused_before_a_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--on-bad-line 'quarantin' is not known.*quarantine"):
        BadLines("quarantin", FoundInputs((), Counter()), tmp_path)
    assert not list(tmp_path.iterdir())
