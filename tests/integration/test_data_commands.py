"""The data and tokenizer commands as a user runs them, on text that every Python has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_tools.python_docs import python_topics, write_python_docs
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.tokenizers import load
from recipes.cli import data, tokenizer

VOCAB_SIZE = 1024


def run(app: object, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docs.jsonl, a tokenizer and a dataset, made by the commands."""
    folder = tmp_path_factory.mktemp("docs")
    write_python_docs(folder / "docs.jsonl")
    run(tokenizer.app, "train", folder / "docs.jsonl", "--vocab-size", VOCAB_SIZE, "--out", folder / "tokenizer")
    arguments = ("--tokenizer", folder / "tokenizer", "--out", folder / "set", "--split", "90,5,5", "--id-field", "id")
    run(data.app, "prepare", folder / "docs.jsonl", *arguments)
    return folder


def test_the_demo_text_is_sorted_and_written_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    count = write_python_docs(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (folder / "docs.jsonl").read_bytes()
    records = [json.loads(line) for line in (folder / "docs.jsonl").read_text().splitlines()]
    assert [(record["id"], record["text"]) for record in records] == list(python_topics())
    assert count == len(records) > 50


def test_training_reports_bytes_per_token_and_transformers_opens_the_tokenizer_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    output = run(tokenizer.app, "train", folder / "docs.jsonl", "--vocab-size", VOCAB_SIZE, "--out", tmp_path / "tokenizer")
    assert f"{VOCAB_SIZE:,} tokens, " in output and "bytes per token" in output
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), load(tmp_path / "tokenizer")
    assert (len(theirs), theirs.eos_token_id, theirs.pad_token_id) == (VOCAB_SIZE, ours.eod_id, ours.eod_id)
    text = " ".join(text for _, text in python_topics())[:20_000] + " na\u00efve  \n\n \u65e5\u672c"
    ids = ours.encode_batch([text]).ids.tolist()
    encoded = theirs(text)
    assert encoded["input_ids"] == ids and list(encoded) == ["input_ids", "attention_mask"]
    assert theirs.decode(ids) == ours.decode(ids) == text
    assert load(folder / "set" / "tokenizer").fingerprint == ours.fingerprint


def test_show_marks_token_boundaries(folder: Path) -> None:
    output = run(tokenizer.app, "show", folder / "tokenizer", "the statement\n")
    assert output.splitlines()[0].replace("\u2502", "") == "the statement\u23ce"
    assert "14 bytes" in output


def test_inspect_shows_counts_lengths_and_samples_and_draws_a_plot(folder: Path, tmp_path: Path) -> None:
    options = ("--samples", 2, "--split", "validation", "--plot", tmp_path / "lengths.png", "--verify")
    output = run(data.app, "inspect", folder / "set", *options)
    assert "validation" in output and "bytes/token" in output and "\u2502" in output
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_gives_the_same_as_json(folder: Path) -> None:
    summary = json.loads(run(data.app, "inspect", folder / "set", "--json", "--samples", 3))
    texts = dict(python_topics())
    assert sum(split["documents"] for split in summary["splits"].values()) == len(texts)
    assert sum(split["bytes"] for split in summary["splits"].values()) == sum(len(text.encode()) for text in texts.values())
    train = summary["splits"]["train"]
    lengths = train["tokens_per_document"]
    assert lengths["min"] <= lengths["p50"] <= lengths["max"] <= train["tokens"]
    assert train["bytes_per_token"] == pytest.approx(train["bytes"] / (train["tokens"] - train["documents"]), abs=1e-4)
    for sample in summary["samples"]:
        assert any(text.startswith("".join(sample["pieces"]).removesuffix("<|endoftext|>")) for text in texts.values())


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no split 'dev'"):
        run(data.app, "inspect", folder / "set", "--samples", 1, "--split", "dev")
    with pytest.raises(ConfigError, match=r"ends in .png"):
        run(data.app, "inspect", folder / "set", "--plot", tmp_path / "lengths.gif")
    with pytest.raises(DataError, match="not a Sibol dataset"):
        run(data.app, "inspect", tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nnonsense\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: broken-json"):
        run(tokenizer.app, "train", tmp_path / "bad.jsonl", "--out", tmp_path / "tokenizer")


def test_shards_made_by_the_command_merge_into_the_dataset_of_one_run(folder: Path, tmp_path: Path) -> None:
    arguments = ("--tokenizer", folder / "tokenizer", "--out", tmp_path / "set", "--split", "90,5,5", "--id-field", "id")
    for number in (2, 1):
        output = run(data.app, "prepare", folder / "docs.jsonl", *arguments, "--shard", f"{number}/2")
        assert f"sibol data merge {tmp_path / 'set'}" in output
    assert "train" in run(data.app, "merge", tmp_path / "set")
    for name in ("manifest.json", "train.bin", "train.idx", "validation.bin", "test.idx"):
        assert (tmp_path / "set" / name).read_bytes() == (folder / "set" / name).read_bytes()
