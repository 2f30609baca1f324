"""A dataset is opened only when its files are what its manifest says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import sha256_of_file


def write_dataset(folder: Path) -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    entry: dict[str, Any] = {"documents": 2, "tokens": 5, "bytes": 20, "max_token_id": 9}
    for suffix, content in (("bin", b"\1\0" * 5), ("idx", b"index")):
        (folder / f"train.{suffix}").write_bytes(content)
        entry |= {f"{suffix}_bytes": len(content), f"{suffix}_sha256": sha256_of_file(folder / f"train.{suffix}")}
    manifest = {
        "schema": "sibol.dataset/1",
        "tokenizer": {"fingerprint": "f" * 64, "vocab_size": 10, "eod_id": 0},
        "append_eod": True,
        "splits": {"train": entry},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_intact_dataset_opens_with_its_counts(tmp_path: Path) -> None:
    info = open_dataset(write_dataset(tmp_path / "set"), verify_contents=True)
    train = info.splits["train"]
    assert (train.documents, train.tokens, train.bytes) == (2, 5, 20)
    assert train.prefix == str(tmp_path / "set" / "train")
    assert (info.vocab_size, info.eod_id, info.append_eod, info.tokenizer_fingerprint) == (10, 0, True, "f" * 64)
    assert info.tokenizer_dir == tmp_path / "set" / "tokenizer"


@pytest.mark.parametrize(("suffix", "cut", "problem"), [("bin", 4, "truncated"), ("idx", 2, "truncated"), ("bin", -1, "altered")])
def test_files_of_another_size_are_refused_with_both_sizes_and_the_remedy(tmp_path: Path, suffix: str, cut: int, problem: str) -> None:
    folder = write_dataset(tmp_path / "set")
    content = (folder / f"train.{suffix}").read_bytes()
    (folder / f"train.{suffix}").write_bytes(content[:-cut] if cut > 0 else content + b"x")
    message = rf"train\.{suffix} is {problem}: {len(content) - cut} bytes found, {len(content)} expected.*sibol data prepare"
    with pytest.raises(DataError, match=message):
        open_dataset(folder)


def test_altered_content_of_the_same_size_is_found_on_request(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    (folder / "train.bin").write_bytes(b"\2\0" * 5)
    open_dataset(folder)
    with pytest.raises(DataError, match=r"train.bin is altered: SHA-256"):
        open_dataset(folder, verify_contents=True)


def test_a_folder_that_is_missing_or_foreign_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "train_text_document.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"foreign is not a Sibol dataset: it has no manifest.json.*sibol data prepare"):
        open_dataset(tmp_path / "foreign")
    with pytest.raises(DataError, match="is a file, not a folder"):
        open_dataset(tmp_path / "foreign" / "train_text_document.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(schema="sibol.dataset/9"), "schema 'sibol.dataset/9', but this version reads 'sibol.dataset/1'"),
        (lambda manifest: manifest.pop("tokenizer"), "manifest.json is damaged: KeyError 'tokenizer'"),
        (lambda manifest: manifest["splits"]["train"].pop("bin_bytes"), "manifest.json is damaged"),
        (lambda manifest: manifest.update(splits={}), "no train split"),
        (lambda manifest: manifest["splits"]["train"].update(max_token_id=10), "token id 10, outside its tokenizer's vocabulary of 10"),
    ],
)
def test_manifests_that_cannot_be_trusted_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    folder = write_dataset(tmp_path / "set")
    change_manifest(folder, change)
    with pytest.raises(DataError, match=message):
        open_dataset(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    (folder / "train.idx").unlink()
    with pytest.raises(DataError, match=r"train.idx is missing"):
        open_dataset(folder)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(DataError, match="lost its tokenizer"):
        open_dataset(folder)


def test_the_fingerprint_follows_contents_and_not_the_place(tmp_path: Path) -> None:
    first, second = open_dataset(write_dataset(tmp_path / "a")), open_dataset(write_dataset(tmp_path / "b"))
    assert first.fingerprint == second.fingerprint
    change_manifest(tmp_path / "b", lambda manifest: manifest["splits"]["train"].update(bin_sha256="0" * 64))
    assert open_dataset(tmp_path / "b").fingerprint != first.fingerprint


def test_a_model_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    info = open_dataset(write_dataset(tmp_path / "set"))
    info.require_tokenizer("f" * 64, "the model")
    with pytest.raises(DataError, match="tokenizer ffffffffffff, but the model uses 000000000000"):
        info.require_tokenizer("0" * 64, "the model")
