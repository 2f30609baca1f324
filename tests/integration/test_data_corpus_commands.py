"""The commands that come before tokenizing, one after the other as a user runs them; and a download that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_tools.download import DownloadOptions, download
from data_tools.hub import HubSource
from data_tools.python_docs import python_topics
from nemo_ext.common.errors import DiskFullError
from recipes.cli import data
from tests.integration.test_data_commands import run
from tests.support.small_text import write_jsonl

KILLED_AFTER_ROWS = 57
DOWNLOAD_AND_DIE = f"""
import os, signal, sys
from pathlib import Path
from data_tools.download import DownloadOptions, download
from data_tools.hub import HubSource

def on_rows(rows, total):
    if rows == {KILLED_AFTER_ROWS}:
        os.kill(os.getpid(), signal.SIGKILL)

download(DownloadOptions(HubSource(sys.argv[1]), Path(sys.argv[2]), piece_bytes=20_000), on_rows)
"""


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_download_dedup_split_and_chunk_work_on_each_others_files(tmp_path: Path) -> None:
    passages = [{"id": name, "text": text, "meta": {"topic": name.partition("/")[0]}} for name, text in python_topics()]
    (tmp_path / "repo").mkdir()
    write_jsonl(tmp_path / "repo" / "train.jsonl", [*passages, *passages[:5]])
    assert f"{len(passages) + 5:,} rows" in run(data.app, "download", tmp_path / "repo", "--out", tmp_path / "all.jsonl.zst")
    output = run(data.app, "dedup", tmp_path / "all.jsonl.zst", "--out", tmp_path / "dedup", "--compression", "none")
    kept, left_out = (records(tmp_path / "dedup" / name) for name in ("documents.jsonl", "duplicates.jsonl"))
    assert f"{len(left_out)} near-duplicate" in output
    assert len(kept) + len(left_out) == len(passages) + 5
    assert [entry["similarity"] for entry in left_out[-5:]] == [1.0] * 5
    output = run(data.app, "split", tmp_path / "dedup" / "documents.jsonl", "--out", tmp_path / "split", "--group-by", "meta.topic")
    assert "Groups of meta.topic in two splits, as read again from the files: 0" in output
    run(data.app, "chunk", tmp_path / "split" / "train.jsonl", "--chunks", 3, "--out", tmp_path / "chunks", "--compression", "gz")
    manifest = json.loads((tmp_path / "chunks" / "manifest.json").read_text())
    assert sum(chunk["lines"] for chunk in manifest["chunks"]) == len(records(tmp_path / "split" / "train.jsonl"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_nothing_that_looks_complete_is_left(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "repo").mkdir()
    documents = [{"text": text, "topic": name.partition("/")[0]} for name, text in python_topics()]
    source, out = write_jsonl(tmp_path / "repo" / "train.jsonl", documents), small_disk / "out.jsonl"
    for arguments in (
        ("chunk", source, "--chunks", 2),
        ("split", source, "--group-by", "topic"),
        ("dedup", source),
        ("download", tmp_path / "repo"),
    ):
        with pytest.raises(DiskFullError, match="No space left"):
            run(data.app, *arguments, "--out", out)
        assert all(path.name.startswith(".") for path in small_disk.iterdir())


def test_a_killed_download_shows_nothing_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    repo, out, whole = tmp_path / "repo", tmp_path / "out" / "all.jsonl.zst", tmp_path / "whole" / "all.jsonl.zst"
    repo.mkdir()
    write_jsonl(repo / "train.jsonl", [{"text": text} for _, text in python_topics()])
    command = [sys.executable, "-c", DOWNLOAD_AND_DIE, str(repo), str(out)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in out.parent.iterdir()] == [".all.jsonl.zst.download.partial"]
    rows_seen: list[int] = []
    download(DownloadOptions(HubSource(str(repo)), out, piece_bytes=20_000), lambda rows, total: rows_seen.append(rows))
    assert 1 < rows_seen[0] <= KILLED_AFTER_ROWS
    download(DownloadOptions(HubSource(str(repo)), whole, piece_bytes=20_000))
    assert out.read_bytes() == whole.read_bytes()
