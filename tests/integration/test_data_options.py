"""What the options of `prepare` do to documents, and that no input, however broken, is lost in silence."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from data_tools.indexed import IndexedReader
from data_tools.inspection import summarize
from data_tools.merge import merge
from data_tools.prepare import PrepareOptions, prepare
from data_tools.sentences import sentences
from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.tokenizers import TextTokenizer, load
from tests.support.small_text import TEXTS, small_tokenizer, write_jsonl

FUZZED_LINES = 10_000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


@pytest.fixture
def options(tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareOptions:
    monkeypatch.setattr("data_tools.units.UNIT_BYTES", 3000)
    source = write_jsonl(tmp_path / "text.jsonl", TEXTS)
    return PrepareOptions((str(source),), tokenizer.path, tmp_path / "set", split="1,0,0", workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stored_texts(options: PrepareOptions, tokenizer: TextTokenizer) -> list[str]:
    reader = IndexedReader(options.out / "train")
    return [tokenizer.decode(reader.sequence(number)[:-1].tolist()) for number in range(len(reader))]


def test_exact_duplicates_leave_the_first_for_any_workers_and_shards(
    options: PrepareOptions, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    chosen = random.Random(1).choices(TEXTS, k=400)
    write_jsonl(Path(options.inputs[0]), [{"text": text, "id": number} for number, text in enumerate(chosen)])
    options = dataclasses.replace(options, drop_duplicates="exact", id_field="id")
    manifest = prepare(options)
    first = list(dict.fromkeys(chosen))
    assert stored_texts(options, tokenizer) == first
    assert manifest["skipped"] == {"exact-duplicate": 400 - len(first)}
    assert manifest["splits"]["train"]["documents"] == len(first)
    assert manifest["splits"]["train"]["bytes"] == sum(len(text.encode()) for text in first)
    open_dataset(options.out, verify_contents=True)
    prepare(dataclasses.replace(options, out=tmp_path / "two", workers=2))
    for number in (3, 1, 2):
        prepare(dataclasses.replace(options, out=tmp_path / "shards", shard=f"{number}/3"))
    merge(tmp_path / "shards")
    assert contents(tmp_path / "two") == contents(tmp_path / "shards") == contents(options.out)


def test_rows_of_parquet_tables_are_documents_like_lines(options: PrepareOptions, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    rows = [{"body": text, "id": number, "unused": [1.5]} for number, text in enumerate(TEXTS)]
    table = pyarrow.Table.from_pylist([*rows, {"body": None, "id": 7, "unused": None}])
    parquet.write_table(table, tmp_path / "table.parquet", row_group_size=10)
    options = dataclasses.replace(options, inputs=(str(tmp_path / "table.parquet"),), text_field="body", id_field="id")
    with pytest.raises(DataError, match=r"table\.parquet:121: missing-text"):
        prepare(options)
    manifest = prepare(dataclasses.replace(options, on_bad_line="quarantine"))
    assert stored_texts(options, tokenizer) == TEXTS
    assert manifest["skipped"] == {"missing-text": 1}
    assert json.loads((options.out / "quarantine.jsonl").read_text())["line"] == 121
    parquet.ParquetWriter(tmp_path / "empty.parquet", table.schema).close()
    assert parquet.ParquetFile(tmp_path / "empty.parquet").num_row_groups == 0
    both = dataclasses.replace(options, inputs=(*options.inputs, str(tmp_path / "empty.parquet")), on_bad_line="skip", overwrite=True)
    assert [entry["path"] for entry in prepare(both)["inputs"]] == list(both.inputs)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"broken\.parquet is not a Parquet table or is damaged"):
        prepare(dataclasses.replace(options, inputs=(str(tmp_path / "broken.parquet"),), overwrite=True))


def test_several_fields_are_joined_and_empty_ones_left_out(options: PrepareOptions, tokenizer: TextTokenizer) -> None:
    write_jsonl(Path(options.inputs[0]), [{"title": "A", "text": "b"}, {"title": "", "text": "c"}])
    prepare(dataclasses.replace(options, text_field="title,text", separator=" / "))
    assert stored_texts(options, tokenizer) == ["A / b", "c"]
    write_jsonl(Path(options.inputs[0]), [{"text": "b"}])
    with pytest.raises(DataError, match="missing-text \\(no field 'title'"):
        prepare(dataclasses.replace(options, text_field="title,text", overwrite=True))


def test_documents_begin_with_the_beginning_of_text_where_there_is_one(options: PrepareOptions, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no bos_token"):
        prepare(dataclasses.replace(options, prepend_bos=True))
    tokenizer = small_tokenizer(tmp_path / "with_bos")
    settings = json.loads((tokenizer.path / "tokenizer_config.json").read_text()) | {"bos_token": "!"}
    (tokenizer.path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load(tokenizer.path)
    plain = dataclasses.replace(options, tokenizer=tokenizer.path, append_eod=False)
    prepare(plain)
    manifest = prepare(dataclasses.replace(plain, prepend_bos=True, append_eod=True, out=tmp_path / "framed"))
    before, after = IndexedReader(plain.out / "train"), IndexedReader(tmp_path / "framed" / "train")
    for number in range(len(before)):
        assert after.sequence(number).tolist() == [tokenizer.bos_id, *before.sequence(number).tolist(), tokenizer.eod_id]
    assert manifest["prepend_bos"] is True and len(after) == len(TEXTS)


def test_sentences_are_sequences_and_documents_span_several(options: PrepareOptions, tokenizer: TextTokenizer) -> None:
    manifest = prepare(dataclasses.replace(options, sentences=True))
    index = (options.out / "train.idx").read_bytes()
    count, limits = np.frombuffer(index[18:34], np.int64)
    expected = [sentences(text) for text in TEXTS]
    assert (count, limits) == (sum(map(len, expected)), len(TEXTS) + 1)
    assert np.frombuffer(index[-8 * limits :], np.int64).tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert manifest["splits"]["train"]["documents"] == len(TEXTS)
    assert summarize(open_dataset(options.out))["splits"]["train"]["documents"] == len(TEXTS)
    reader, spoken = IndexedReader(options.out / "train"), [sentence for text in expected for sentence in text]
    stored = [reader.sequence(number).tolist() for number in range(count)]
    assert [tokenizer.decode([token for token in ids if token != tokenizer.eod_id]) for ids in stored] == spoken
    assert sum(ids[-1] == tokenizer.eod_id for ids in stored) == len(TEXTS)


@given(st.text(st.sampled_from("ab.!?…。」\"') \n\t"), max_size=40))
def test_sentences_are_the_text(text: str) -> None:
    found = sentences(text)
    assert "".join(found) == text and all(found)
    assert not any(sentence.isspace() for sentence in found[1:])


@pytest.mark.parametrize("sentence_wise", [False, True])
def test_long_documents_are_stored_like_short_ones(
    options: PrepareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence_wise: bool
) -> None:
    lines = ["\n".join(TEXTS), *TEXTS[:5], "z" * 9000, {"text": "a", "other": "b" * 9000}, {"text": 7, "other": "\ud800" * 9000}]
    write_jsonl(Path(options.inputs[0]), lines)
    options = dataclasses.replace(options, sentences=sentence_wise, on_bad_line="quarantine", plugin="stochastok")
    short = prepare(options)
    for name in ("encode.LONG_BYTES", "units.READ_BYTES", "units.BATCH_BYTES", "long_documents.LONG_STRING_BYTES"):
        monkeypatch.setattr(f"data_tools.{name}", 200)
    monkeypatch.setattr("data_tools.text_encoder.CHUNK_CHARACTERS", 300)
    long = prepare(dataclasses.replace(options, out=tmp_path / "long"))
    assert long["encoder"].pop("long_documents") > 3
    assert long["encoder"].pop("long_documents_encoded_whole") >= 1  # the z have no place to cut
    assert long == short
    for name in ("train.bin", "train.idx", "quarantine.jsonl"):
        assert (tmp_path / "long" / name).read_bytes() == (options.out / name).read_bytes()


def test_a_plugin_that_changes_nothing_is_an_error(options: PrepareOptions) -> None:
    nothing = dataclasses.replace(options, plugin="stochastok", plugin_settings=("stochastok.expand_prop=0",))
    with pytest.raises(DataError, match=r"'stochastok' with settings .* changed none of 120 documents.*Choose stronger settings"):
        prepare(nothing)
    manifest = prepare(dataclasses.replace(nothing, plugin_settings=("stochastok.expand_prop=0.3",)))
    assert manifest["plugin"] == {"name": "stochastok", "settings": {"expand_prop": 0.3}}
    assert 100 < manifest["plugin_counts"]["documents_changed"] <= manifest["plugin_counts"]["documents"] == len(TEXTS)


@pytest.mark.parametrize("workers", [1, 2])
def test_settings_that_a_plugin_refuses_are_named_before_any_work(options: PrepareOptions, workers: int) -> None:
    wrong = dataclasses.replace(options, plugin="patok", plugin_settings=("affix_awareness=2",), workers=workers)
    with pytest.raises(ConfigError, match=r"patok\.affix_awareness=2.* is no probability"):
        prepare(wrong)
    assert not options.out.exists()


def test_a_large_compressed_file_is_pointed_out_and_takes_one_worker(
    options: PrepareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    zipped = tmp_path / "text.jsonl.gz"
    zipped.write_bytes(gzip.compress(Path(options.inputs[0]).read_bytes()))
    monkeypatch.setattr("data_tools.prepare.BYTES_WORTH_A_CUT", 100)
    monkeypatch.delattr("data_tools.work.ProcessPoolExecutor")
    prepare(dataclasses.replace(options, inputs=(str(zipped),), workers=4))
    assert "text.jsonl.gz is compressed, so it is one piece of work" in caplog.text


def test_verification_encodes_everything_twice_and_says_so(options: PrepareOptions, tmp_path: Path) -> None:
    plain = prepare(options)
    manifest = prepare(dataclasses.replace(options, verify_encoder=True, out=tmp_path / "verified", workers=2))
    found = manifest["encoder"]
    assert found == {"name": "tiktoken", "verified": True, "verified_texts": len(TEXTS), "differing_texts": 0}
    assert manifest["splits"] == plain["splits"]


def fuzzed_line(chance: random.Random) -> bytes:
    """A line that is good or broken in one of many ways."""
    text = "".join(chance.choices('ab \u00e9\u65e5\U0001f600\\"\x00\x1f\u2028{}[]:,', k=chance.randint(0, 30)))
    good = json.dumps({"text": text, "id": chance.randint(0, 99)}, ensure_ascii=chance.random() < 0.5).encode()
    place = chance.randint(0, len(good))
    broken = [
        good,
        good[:place],
        good[:place] + chance.randbytes(chance.randint(1, 4)).replace(b"\n", b"") + good[place:],
        json.dumps({"text": chance.choice([None, 1, 2.5, True, [], {}, [text]])}).encode(),
        json.dumps(chance.choice([[], 7, "text", None, {"txet": text}])).encode(),
        b'{"text": "\\ud800' + bytes(chance.choices(b"ab", k=3)) + b'"}',
        b'{"text": "a\x00b"}',
        b'{"text": "a", "text": "b"}',
        b"",
        b" \t ",
        b"{" * chance.randint(1, 3000),
        b'{"text": "' + b"word " * chance.randint(1, 2000) + b'"}',
        b'{"text": ' + b"9" * chance.randint(1, 5000) + b"}",
        chance.randbytes(chance.randint(1, 40)).replace(b"\n", b""),
    ]
    return chance.choice(broken)


def test_ten_thousand_fuzzed_lines_end_in_documents_counts_and_a_quarantine(
    options: PrepareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.units.UNIT_BYTES", 1 << 19)
    chance = random.Random(5)
    lines = [fuzzed_line(chance) for _ in range(FUZZED_LINES)]
    Path(options.inputs[0]).write_bytes(b"\n".join([*lines, b""]))
    options = dataclasses.replace(options, on_bad_line="quarantine", min_tokens=0, workers=2)
    manifest = prepare(options)
    quarantined = [json.loads(line) for line in (options.out / "quarantine.jsonl").read_text().split("\n")[:-1]]
    by_reason = Counter(record["reason"] for record in quarantined)
    assert manifest["splits"]["train"]["documents"] + sum(manifest["skipped"].values()) == FUZZED_LINES
    assert {**by_reason, "blank-line": manifest["skipped"]["blank-line"]} == manifest["skipped"]
    assert all(raw_of(record) == lines[record["line"] - 1] for record in quarantined)
    assert len(by_reason) >= 8 and min(by_reason.values()) > 10
    prepare(dataclasses.replace(options, out=tmp_path / "one", workers=1))
    assert contents(options.out) == contents(tmp_path / "one")


def raw_of(record: dict[str, Any]) -> bytes:
    return record["raw"].encode() if "raw" in record else base64.b64decode(record["raw_base64"])
