"""`prepare` end to end: the same bytes for any workers, every loss counted, and nothing half-done left under a final name."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_tools.indexed import IndexedReader
from data_tools.inputs import InputFile
from data_tools.prepare import PrepareOptions, prepare
from data_tools.shards import SHARDS_FOLDER
from data_tools.work import start_method
from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError, SibolError
from nemo_ext.tokenizers import TextTokenizer
from tests.support.small_text import TEXTS, small_tokenizer, write_jsonl


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


@pytest.fixture(autouse=True)
def many_batches_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_tools.units.BATCH_BYTES", 1000)
    monkeypatch.setattr("data_tools.units.UNIT_BYTES", 3000)


@pytest.fixture
def options(tokenizer: TextTokenizer, tmp_path: Path) -> PrepareOptions:
    source = write_jsonl(tmp_path / "text.jsonl", TEXTS)
    return PrepareOptions((str(source),), tokenizer.path, tmp_path / "out" / "set", split="60,20,20", workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def documents_of(folder: Path, split: str) -> Iterator[list[int]]:
    reader = IndexedReader(folder / split)
    yield from (reader.sequence(number).tolist() for number in range(len(reader)))


def assert_no_dataset(options: PrepareOptions) -> None:
    """Nothing but unfinished work, which the next run takes up."""
    assert not options.out.exists() or [path.name for path in options.out.iterdir()] == [SHARDS_FOLDER]


def test_every_document_is_stored_once_with_its_end_and_its_bytes(options: PrepareOptions, tokenizer: TextTokenizer) -> None:
    manifest = prepare(options)
    info = open_dataset(options.out, verify_contents=True)
    stored = [document for split in info.splits for document in documents_of(options.out, split)]
    assert sorted(tokenizer.decode(document[:-1]) for document in stored) == sorted(TEXTS)
    assert {document[-1] for document in stored} == {tokenizer.eod_id}
    assert sum(split.tokens for split in info.splits.values()) == sum(map(len, stored))
    assert sum(split.bytes for split in info.splits.values()) == sum(len(text.encode()) for text in TEXTS)
    assert list(info.splits) == ["train", "validation", "test"] and manifest["duplicate_documents"] == len(TEXTS) - len(set(TEXTS))
    assert info.tokenizer_fingerprint == tokenizer.fingerprint and info.manifest == manifest


def test_any_number_of_workers_writes_the_same_bytes(options: PrepareOptions, tmp_path: Path) -> None:
    prepare(options)
    prepare(dataclasses.replace(options, workers=3, out=tmp_path / "three"))
    assert contents(options.out) == contents(tmp_path / "three")


def test_workers_are_forked_unless_a_thread_may_hold_a_lock_then(options: PrepareOptions, tmp_path: Path) -> None:
    code = "from data_tools.work import start_method; print(start_method(()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == ("fork" if sys.platform == "linux" else "spawn")
    prepare(options)
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert start_method(()) == "spawn"
        prepare(dataclasses.replace(options, workers=2, out=tmp_path / "two"))
    finally:
        release.set()
        thread.join()
    assert contents(options.out) == contents(tmp_path / "two")
    assert start_method((InputFile(tmp_path / "rows.parquet", False, "", 1, is_table=True),)) == "spawn"


def test_splits_do_not_depend_on_order_files_or_compression(options: PrepareOptions, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "shuffled").mkdir()
    for part in range(2):
        source = write_jsonl(tmp_path / "part.jsonl", TEXTS[::-1][part::2])
        (tmp_path / "shuffled" / f"{part}.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    prepare(options)
    prepare(dataclasses.replace(options, inputs=(str(tmp_path / "shuffled"),), out=tmp_path / "other"))
    for split in ("train", "validation", "test"):
        assert sorted(documents_of(options.out, split)) == sorted(documents_of(tmp_path / "other", split))


def test_text_files_are_one_document_each(options: PrepareOptions, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS[:5]):
        (tmp_path / "texts" / f"{number}.txt").write_bytes(text.encode())
    prepare(dataclasses.replace(options, inputs=(str(tmp_path / "texts"),), split="1,0,0", append_eod=False))
    assert [tokenizer.decode(document) for document in documents_of(options.out, "train")] == TEXTS[:5]
    with pytest.raises(ConfigError, match=r"0\.txt has no fields"):
        prepare(dataclasses.replace(options, inputs=(str(tmp_path / "texts"),), id_field="id", overwrite=True))


def test_documents_out_of_the_length_limits_are_left_out_and_counted(options: PrepareOptions, tokenizer: TextTokenizer) -> None:
    lengths = tokenizer.encode_batch(TEXTS).lengths
    least, most = int(lengths.min()) + 1, int(lengths.max()) - 1
    manifest = prepare(dataclasses.replace(options, min_tokens=least, max_tokens=most))
    assert manifest["skipped"] == {"too-long": int((lengths > most).sum()), "too-short": int((lengths < least).sum())}
    kept = sum(split["documents"] for split in manifest["splits"].values())
    assert kept == len(TEXTS) - sum(manifest["skipped"].values())


BAD_LINES = {3: (b'{"text": "a"', "broken-json"), 40: (b'{"text": "\xff"}', "invalid-utf8"), 41: (b'{"text": ""}', "empty-text")}


def with_bad_lines(options: PrepareOptions, **changes: Any) -> PrepareOptions:
    source = Path(options.inputs[0])
    lines = source.read_bytes().splitlines()
    for number, (line, _) in BAD_LINES.items():
        lines.insert(number - 1, line)
    source.write_bytes(b"\n".join([*lines, b"", b""]))
    return dataclasses.replace(options, **changes)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_stops_the_work_naming_file_line_reason_text_and_remedy(options: PrepareOptions, workers: int) -> None:
    with pytest.raises(DataError) as caught:
        prepare(with_bad_lines(options, workers=workers))
    message = str(caught.value)
    assert message.startswith(f'{options.inputs[0]}:3: broken-json (Expecting \',\' delimiter at column 13). It begins: {{"text": "a"\n')
    assert "--on-bad-line skip" in message and "quarantine" in message
    assert_no_dataset(options)


def test_skipped_lines_are_counted_by_reason(options: PrepareOptions) -> None:
    manifest = prepare(with_bad_lines(options, on_bad_line="skip"))
    assert manifest["skipped"] == {"blank-line": 1, "broken-json": 1, "empty-text": 1, "invalid-utf8": 1}
    assert sum(split["documents"] for split in manifest["splits"].values()) == len(TEXTS)


def test_quarantined_lines_are_kept_as_they_were(options: PrepareOptions) -> None:
    prepare(with_bad_lines(options, on_bad_line="quarantine", workers=2))
    records = [json.loads(line) for line in (options.out / "quarantine.jsonl").read_text().splitlines()]
    raw = [record["raw"].encode() if "raw" in record else base64.b64decode(record["raw_base64"]).removesuffix(b"\n") for record in records]
    assert dict(zip((record["line"] for record in records), raw, strict=True)) == {number: line for number, (line, _) in BAD_LINES.items()}
    assert [record["reason"] for record in records] == [reason for _, reason in BAD_LINES.values()]


def test_a_dry_run_counts_the_same_and_writes_nothing(options: PrepareOptions) -> None:
    counted = prepare(dataclasses.replace(options, dry_run=True))
    assert not options.out.parent.exists()
    written = prepare(options)
    assert {name: split["tokens"] for name, split in counted["splits"].items()} == {
        name: split["tokens"] for name, split in written["splits"].items()
    }


def test_an_existing_dataset_is_replaced_only_on_request_and_other_folders_never(options: PrepareOptions, tmp_path: Path) -> None:
    prepare(options)
    with pytest.raises(OutputExistsError, match=r"already exists.*--overwrite"):
        prepare(options)
    prepare(dataclasses.replace(options, split="1,0,0", overwrite=True))
    assert list(open_dataset(options.out, verify_contents=True).splits) == ["train"]
    assert not (options.out / "test.bin").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    for manifest in (None, {"schema": "sibol.chunks/1"}):
        if manifest is not None:
            (tmp_path / "thesis" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(OutputExistsError, match=r"thesis was not written by this command.*does not replace it"):
            prepare(dataclasses.replace(options, out=tmp_path / "thesis", overwrite=True))
    (options.out / "chapter.tex").write_text("precious")
    before = {path: path.read_bytes() for path in options.out.rglob("*") if path.is_file()}
    with pytest.raises(OutputExistsError, match=r"set has chapter\.tex beside a dataset"):
        prepare(dataclasses.replace(options, overwrite=True))
    assert {path: path.read_bytes() for path in options.out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"inputs": ("nowhere.jsonl",)}, DataError, "Input not found: nowhere.jsonl"),
        ({"text_field": "body"}, DataError, r"text\.jsonl:1: missing-text \(no field 'body'; found 'text'\)"),
        ({"min_tokens": 10**6}, DataError, "train split would be empty: 0 documents in all, 120 too-short.*--min-tokens"),
        ({"tokenizer": Path("nowhere")}, DataError, "Tokenizer folder not found: nowhere"),
        ({"plugin": "vanila"}, ConfigError, "Unknown tokenizer plugin 'vanila'"),
        ({"plugin_settings": ("p=1",)}, ConfigError, "'vanilla' has no setting 'p'"),
        ({"on_bad_line": "ignore"}, ConfigError, "Choose one of: fail, skip, quarantine"),
        ({"workers": 0}, ConfigError, "--workers 0"),
        ({"min_tokens": 9, "max_tokens": 3}, ConfigError, "no document can have such a length"),
    ],
)
def test_options_that_cannot_work_are_refused_and_make_no_dataset(
    options: PrepareOptions, changes: dict[str, Any], error: type[SibolError], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(dataclasses.replace(options, **changes))
    assert_no_dataset(options)


PLUGIN = """
import os
from dataclasses import dataclass
import numpy as np
from nemo_ext.tokenizers.ragged import from_lengths

@dataclass
class Settings:
    die: bool = False

class Shift:
    name = "shift"
    settings_type = Settings

    def __init__(self, settings, tokenizer):
        self.settings, self.spelled = settings, tokenizer.token_bytes
        self.bytes = {text[0]: token for token, text in enumerate(self.spelled) if len(text) == 1}

    def __call__(self, batch, document_ids, seed):
        if self.settings.die and batch.documents:
            os._exit(9)
        documents = [batch.document(number).tolist() for number in range(batch.documents)]
        for ids, number in zip(documents, document_ids.tolist()):
            place = int(np.random.default_rng([seed, number]).integers(len(ids)))
            ids[place : place + 1] = [self.bytes[byte] for byte in self.spelled[ids[place]]]
        return from_lengths(np.array(sum(documents, [])), np.array([len(ids) for ids in documents]))
"""


@pytest.fixture
def outside_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings a tokenizer plugin, in this process and in workers."""
    (tmp_path / "site" / "shift-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "shift_plugin.py").write_text(PLUGIN)
    (tmp_path / "site" / "shift-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shift\nVersion: 1.0\n")
    (tmp_path / "site" / "shift-1.0.dist-info" / "entry_points.txt").write_text("[sibol.tokenizers]\nshift = shift_plugin:Shift\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("outside_plugin")
def test_a_plugin_from_another_package_decides_the_stored_ids_for_any_number_of_workers(options: PrepareOptions, tmp_path: Path) -> None:
    plain = prepare(options)
    shifted = dataclasses.replace(options, plugin="shift", seed=7, out=tmp_path / "one")
    manifest = prepare(shifted)
    prepare(dataclasses.replace(shifted, workers=2, out=tmp_path / "two"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert manifest["plugin"] == {"name": "shift", "settings": {"die": False}} and manifest["seed"] == 7
    for split in ("train", "validation", "test"):
        assert manifest["splits"][split]["tokens"] > plain["splits"][split]["tokens"]
        assert manifest["splits"][split]["bin_sha256"] != plain["splits"][split]["bin_sha256"]
    assert {document[-1] for document in documents_of(tmp_path / "one", "train")} == {0}  # the end of a document is not the plugin's


@pytest.mark.usefixtures("outside_plugin")
def test_a_worker_that_dies_is_reported_and_makes_no_dataset(options: PrepareOptions) -> None:
    with pytest.raises(SibolError, match=r"A worker process died.*fewer --workers"):
        prepare(dataclasses.replace(options, plugin="shift", plugin_settings=("die=true",), workers=2))
    assert_no_dataset(options)
