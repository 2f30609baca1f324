"""Chunks are the input again, and of equal size."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_tools.chunk import ChunkOptions, chunk
from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError

LINES = st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b" ") + b"\n"), min_size=1, max_size=40)


def contents(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(raw)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()
    return raw


def cut(source: Path, chunks: int, **options: Any) -> tuple[dict[str, Any], list[bytes]]:
    out = source.parent / "out"
    manifest = chunk(ChunkOptions((str(source),), out, chunks, overwrite=True, **options))
    assert [path.name for path in sorted(out.iterdir())] == [entry["name"] for entry in manifest["chunks"]] + ["manifest.json"]
    for entry in manifest["chunks"]:
        assert hashlib.sha256((out / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]
    return manifest, [contents(out / entry["name"]) for entry in manifest["chunks"]]


@given(LINES, st.integers(1, 6), st.booleans(), st.sampled_from(["none", "gz", "zst"]))
def test_chunks_by_lines_are_the_input_again_and_differ_by_one_line_at_most(
    lines: list[bytes], chunks: int, ended: bool, kind: str
) -> None:
    whole = b"".join(lines) if ended or lines[-1] == b"\n" else b"".join(lines)[:-1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.jsonl"
        source.write_bytes(whole)
        if len(lines) < chunks:
            with pytest.raises(DataError, match="too few"):
                cut(source, chunks, compression=kind)
            return
        manifest, parts = cut(source, chunks, compression=kind)
    assert b"".join(parts) == whole
    assert manifest["text"] == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    counts = [entry["lines"] for entry in manifest["chunks"]]
    assert sum(counts) == len(lines) and max(counts) - min(counts) <= 1


@given(LINES, st.integers(1, 4))
def test_chunks_by_bytes_are_the_input_again_and_differ_by_at_most_the_longest_line(lines: list[bytes], chunks: int) -> None:
    whole = b"".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.jsonl"
        source.write_bytes(whole)
        try:
            _, parts = cut(source, chunks, by="bytes")
        except DataError:
            assert max(map(len, lines)) > len(whole) / chunks - 1
            return
    assert b"".join(parts) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * max(map(len, lines))


def test_compression_follows_the_input_and_files_are_not_run_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"1\n2"))
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf3\n4")
    manifest = chunk(ChunkOptions((str(tmp_path / "a.jsonl.gz"), str(tmp_path / "b.jsonl")), tmp_path / "out", 2))
    assert [contents(tmp_path / "out" / entry["name"]) for entry in manifest["chunks"]] == [b"1\n2\n", b"3\n4"]
    assert [entry["name"] for entry in manifest["chunks"]] == ["chunk_0001.jsonl.gz", "chunk_0002.jsonl.gz"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


def test_mistakes_are_named_and_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n2\n")
    (tmp_path / "a.txt").write_bytes(b"text")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").touch()
    out, source = tmp_path / "out", (str(tmp_path / "a.jsonl"),)
    for error, options in [
        (ConfigError, ChunkOptions(source, out, 2, by="words")),
        (ConfigError, ChunkOptions(source, out, 0)),
        (ConfigError, ChunkOptions(source, out, 1, compression="xz")),
        (ConfigError, ChunkOptions((str(tmp_path / "a.txt"),), out, 1)),
        (DataError, ChunkOptions(source, out, 3)),
        (OutputExistsError, ChunkOptions(source, tmp_path / "taken", 1)),
        (OutputExistsError, ChunkOptions(source, tmp_path / "taken", 1, overwrite=True)),
    ]:
        with pytest.raises(error):
            chunk(options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.txt", "taken"]
