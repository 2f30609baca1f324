"""Downloads from a local dataset folder: the same bytes however often they are interrupted, and nothing half-written in view."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from data_tools import download as module
from data_tools.download import DownloadOptions, download, manifest_path
from data_tools.hub import KNOWN, HubSource, known_source
from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError
from tests.unit.test_data_chunk import contents

FILES, ROWS_PER_FILE = 3, 20
ROWS = [{"text": f"file {file} row {row} \u00e9", "study": row % 4} for file in range(FILES) for row in range(ROWS_PER_FILE)]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three Parquet files with several row groups each."""
    folder = tmp_path_factory.mktemp("repo")
    for file in range(FILES):
        table = pyarrow.Table.from_pylist(ROWS[file * ROWS_PER_FILE : (file + 1) * ROWS_PER_FILE])
        parquet.write_table(table, folder / f"train-{file:05d}-of-{FILES:05d}.parquet", row_group_size=7)
    return folder


def fetch(repo: Path, out: Path, stop_after: int | None = None, **options: Any) -> dict[str, Any]:
    def on_rows(rows: int, total: int | None) -> None:
        if rows == stop_after:
            raise KeyboardInterrupt

    source = HubSource(str(repo), **{key: options.pop(key) for key in ("fields", "split", "data_dir") if key in options})
    return download(DownloadOptions(source, out, **{"piece_bytes": 200, **options}), on_rows)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in contents(path).decode().splitlines()]


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz", "all.jsonl.zst"])
def test_an_interrupted_download_goes_on_and_gives_the_same_bytes(repo: Path, tmp_path: Path, name: str) -> None:
    whole, out = tmp_path / "whole" / name, tmp_path / "again" / name
    manifest = fetch(repo, whole)
    assert lines(whole) == ROWS
    for rows in (1, 5, 6, 31, 60):
        with pytest.raises(KeyboardInterrupt):
            fetch(repo, out, stop_after=rows)
        assert [path.name for path in out.parent.iterdir() if not path.name.startswith(".")] == []
    first_row_seen: list[int] = []
    source = HubSource(str(repo))
    again = download(DownloadOptions(source, out, piece_bytes=200), lambda rows, total: first_row_seen.append(rows))
    assert first_row_seen[0] > 50
    assert out.read_bytes() == whole.read_bytes() and again == manifest
    assert sorted(path.name for path in out.parent.iterdir()) == [name, f"{name}.manifest.json"]


def test_the_manifest_says_what_was_fetched(repo: Path, tmp_path: Path) -> None:
    out = tmp_path / "some.jsonl"
    manifest = fetch(repo, out, fields=("study",), rows=25)
    assert lines(out) == [{"study": row["study"]} for row in ROWS[:25]]
    assert manifest["rows"] == 25 and manifest["source"]["fields"] == ("study",)
    assert manifest["source"]["revision"].startswith("files-")
    assert manifest["file"] == {"name": out.name, "bytes": out.stat().st_size, "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}
    assert json.loads(manifest_path(out).read_text())["file"] == manifest["file"]


def test_what_has_arrived_is_verified_before_going_on(repo: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    with pytest.raises(KeyboardInterrupt):
        fetch(repo, out, stop_after=40)
    partial = tmp_path / ".all.jsonl.download.partial"
    good = (partial / "rows").read_bytes()
    (partial / "rows").write_bytes(b"X" + good[1:])
    with pytest.raises(DataError, match="not what was written"):
        fetch(repo, out)
    (partial / "rows").write_bytes(good[:50])
    with pytest.raises(DataError, match="not what was written"):
        fetch(repo, out)
    (partial / "rows").write_bytes(good + b"half a piece")
    fetch(repo, out)
    assert lines(out) == ROWS


def test_other_options_other_contents_and_another_process_do_not_mix(repo: Path, tmp_path: Path) -> None:
    local = tmp_path / "repo"
    local.mkdir()
    (local / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "all.jsonl"
    with pytest.raises(KeyboardInterrupt):
        fetch(local, out, stop_after=40)
    with pytest.raises(OutputExistsError, match="other options"):
        fetch(local, out, fields=("text",))
    with module._locked(tmp_path / ".all.jsonl.download.partial" / "rows", out), pytest.raises(OutputExistsError, match="Another process"):
        fetch(local, out)
    (local / "train.jsonl").write_text('{"text": "new", "study": 1}\n')
    with pytest.raises(DataError, match="changed since"):
        fetch(local, out)


def test_mistakes_are_named(repo: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    for error, match, arguments in [
        (DataError, "Available splits", {"split": "dev"}),
        (DataError, "'words' not in the dataset|words", {"fields": ("words",)}),
        (DataError, "data files", {"data_dir": "tl"}),
        (ConfigError, "--rows 0", {"rows": 0}),
    ]:
        with pytest.raises(error, match=match):
            fetch(repo, out, **arguments)
    with pytest.raises(DataError, match=r"owner/name .*offline"):
        fetch(Path("owner/name"), out)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        fetch(repo, tmp_path / "all.parquet")
    fetch(repo, out)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        fetch(repo, out)
    assert fetch(repo, out, overwrite=True)["rows"] == len(ROWS)


def test_values_that_json_does_not_have_are_named(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "score": [1.0, float("nan")]}), repo / "train.parquet")
    with pytest.raises(DataError, match=r"Row 1 .* --fields"):
        fetch(repo, tmp_path / "all.jsonl")
    assert fetch(repo, tmp_path / "text.jsonl", fields=("text",))["rows"] == 2


def test_known_names_stand_for_datasets_of_the_hub() -> None:
    assert known_source(HubSource("sea-pile-v2-filipino")) == KNOWN["sea-pile-v2-filipino"]
    changed = known_source(HubSource("sea-pile-v2-filipino", data_dir="th", revision="v1"))
    assert (changed.data_dir, changed.revision, changed.fields) == ("th", "v1", ("text",))
    assert known_source(HubSource("owner/name")) == HubSource("owner/name")
    with pytest.raises(ConfigError, match="Did you mean 'socsci210'"):
        known_source(HubSource("socsci"))
