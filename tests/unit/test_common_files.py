"""A file or folder is complete or not there, and a full disk says so."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import DataError, DiskFullError, OutputExistsError
from nemo_ext.common.files import atomic_file, atomic_folder, disk_errors, read_json, refuse_existing, sha256_of_json, write_json


def test_a_file_appears_only_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic_file(target) as handle:
        handle.write("half")
        handle.flush()
        assert not target.exists()
    assert target.read_text() == "half"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as handle:
        handle.write("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert target.read_text() == "old"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(OutputExistsError, match=r"pass --overwrite"), atomic_folder(target):
        pass
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_counts_as_free(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty")
    (tmp_path / "empty" / "file").touch()
    with pytest.raises(OutputExistsError):
        refuse_existing(tmp_path / "empty")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_becomes_an_error_that_names_the_place(number: int) -> None:
    with (
        pytest.raises(DiskFullError, match=r"No space left while writing /some/where.*run the same command again"),
        disk_errors(Path("/some/where")),
    ):
        raise OSError(number, "full")


def test_other_errors_of_the_system_pass_through() -> None:
    with pytest.raises(PermissionError), disk_errors(Path("/some/where")):
        raise PermissionError


def test_json_errors_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(DataError, match=r"settings file .*broken\.json is not valid JSON .*line 2"):
        read_json(tmp_path / "broken.json", "settings file")
    with pytest.raises(DataError, match=r"settings file not found"):
        read_json(tmp_path / "absent.json", "settings file")
    with pytest.raises(ValueError):
        write_json(tmp_path / "nan.json", {"a": float("nan")})
    assert not (tmp_path / "nan.json").exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(json_values)
def test_equal_json_values_have_equal_digests_whatever_their_order(value: object) -> None:
    def reordered(node: object) -> object:
        if isinstance(node, dict):
            return {key: reordered(node[key]) for key in reversed(list(node))}
        return [reordered(entry) for entry in node] if isinstance(node, list) else node

    assert sha256_of_json(value) == sha256_of_json(reordered(value))
    assert sha256_of_json(value) != sha256_of_json([value])
    json.dumps(value)
