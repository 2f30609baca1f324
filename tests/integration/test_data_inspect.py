"""What `sibol data inspect` says a plugin did is what it did, for every kind of tokenizer; arms are compared on equal text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools import treatment
from data_tools.against import compare_datasets
from data_tools.indexed import IndexedReader
from data_tools.prepare import PrepareOptions, prepare
from data_tools.treatment import NOT_UTF8, describe_treatment
from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.tokenizers import load
from recipes.cli import data
from tests.integration.test_data_commands import run
from tests.support.small_text import TEXTS, write_jsonl
from tests.support.tokenizer_kinds import KINDS

PLAIN_TEXTS = [text.replace("\u65e5\u672c\u8a9e", "ulan") for text in TEXTS]  # no character that WordPiece has no token for
AFFIXES = "prefixes: [mag, nag, ka, pag, ma]\ninfixes: [um, in]\nsuffixes: [an, in]\n"


def arm(folder: Path, name: str, plugin: str = "vanilla", settings: tuple[str, ...] = (), texts: list[str] = PLAIN_TEXTS) -> Path:
    inputs = write_jsonl(folder / f"{name}.jsonl", texts)
    prepare(PrepareOptions((str(inputs),), folder / "tokenizer", folder / name, split="80,10,10", plugin=plugin, plugin_settings=settings))
    return folder / name


@pytest.fixture(scope="module", params=KINDS)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tokenizer and two arms, vanilla and treated."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        KINDS[request.param](folder / "tokenizer")
        arm(folder, "vanilla")
        arm(folder, "treated", "stochastok", ("expand_prop=0.4",))
        (folder / "affixes.yaml").write_text(AFFIXES)
        yield folder


def test_the_treatment_is_what_comparing_the_arms_gives(study: Path) -> None:
    vanilla, treated = open_dataset(study / "vanilla"), open_dataset(study / "treated")
    found, compared = describe_treatment(treated, most_documents=None), compare_datasets(vanilla, treated)
    tokens = [sum(split.tokens - split.documents for split in info.splits.values()) for info in (vanilla, treated)]
    assert found["tokens"] == {"before": tokens[0], "after": tokens[1]} and tokens[1] > 1.05 * tokens[0]
    assert found["compared"] == {"unit": "documents", "count": len(PLAIN_TEXTS), "of": len(PLAIN_TEXTS), "left_out": {}}
    for key in ("expansion", "documents_changed", "ids_changed", "boundaries_added", "boundaries_removed"):
        assert found[key] == compared[key]
    assert found["expansion"] == pytest.approx(tokens[1] / tokens[0] - 1, abs=1e-6)
    assert found["boundaries_added"] == found["expansion"] and found["boundaries_removed"] == 0  # splits only add
    assert 0 < found["ids_changed"] < 1 and 0 <= found["unsplittable"] < 1
    words = found["tokens_per_word"]
    assert words["after"] / words["before"] == pytest.approx(tokens[1] / tokens[0], rel=1e-3)


def test_vanilla_is_vanilla(study: Path) -> None:
    found = describe_treatment(open_dataset(study / "vanilla"), most_documents=None)
    assert found["tokens"]["before"] == found["tokens"]["after"]
    assert (found["expansion"], found["ids_changed"], found["documents_changed"]) == (0, 0, 0)
    compared = compare_datasets(open_dataset(study / "vanilla"), open_dataset(study / "vanilla"))
    assert compared["tokens_ratio"] == 1 and compared["ids_changed"] == 0 and compared["first_differences"] == []


def test_a_sample_is_of_every_split_and_affixes_are_cut_more_after_splitting(study: Path, tmp_path: Path) -> None:
    report = json.loads(
        run(data.app, "inspect", study / "treated", "--documents", 5, "--affixes", study / "affixes.yaml", "--json", "--samples", 2)
    )
    treatment = report["treatment"]
    assert treatment["compared"]["count"] == 15
    kinds = treatment["affixes"]["kinds"]
    assert kinds["prefix"]["occurrences"] > 0
    for entry in kinds.values():
        if entry["occurrences"]:
            assert entry["cut_within"]["after"] >= entry["cut_within"]["before"]
            assert entry["boundary_at_edge"]["after"] >= entry["boundary_at_edge"]["before"]
    for sample in report["samples"]:
        vanilla, stored = ("".join(sample[key]) for key in ("vanilla_pieces", "pieces"))
        assert vanilla.replace("##", "").startswith(stored.replace("##", "")) and sample["vanilla_pieces"] != sample["pieces"]


def test_the_report_is_printed_and_drawn(study: Path, tmp_path: Path) -> None:
    options = ("--affixes", study / "affixes.yaml", "--samples", 1, "--plot", tmp_path / "plot.png")
    output = run(data.app, "inspect", study / "treated", *options)
    for part in ("stochastok expand_prop=0.4", "boundaries added", "all prefixes", "vanilla  ", "stored   ", "Left out: none"):
        assert part in output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "stochastok" not in run(data.app, "inspect", study / "treated", "--no-treatment")
    (tmp_path / "plot.png").unlink()
    output = run(data.app, "inspect", study / "treated", "--against", study / "vanilla", *options)
    for part in ("Same text in all 120 of 120 documents", "from token", "all prefixes", "stored   "):
        assert part in output
    assert (tmp_path / "plot.png").exists()
    report = json.loads(run(data.app, "inspect", study / "treated", "--against", study / "vanilla", "--no-treatment", "--json"))
    assert report["against"]["compared"]["count"] == 120 and report["splits"] and "treatment" not in report


def test_a_treatment_that_left_no_trace_is_pointed_out(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "vanilla", tmp_path / "lost")
    manifest = json.loads((tmp_path / "lost" / "manifest.json").read_text())
    manifest["plugin"] = {"name": "stochastok", "settings": {"expand_prop": 0.1}}
    (tmp_path / "lost" / "manifest.json").write_text(json.dumps(manifest))
    assert "left no trace" in run(data.app, "inspect", tmp_path / "lost")


def test_other_documents_are_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "tokenizer", tmp_path / "tokenizer")
    swapped = [text.replace("number", "rebmun") for text in PLAIN_TEXTS]
    ids = [{"text": text, "id": number} for number, text in enumerate(PLAIN_TEXTS)]
    for name, documents in (("one", ids), ("other", [entry | {"text": text} for entry, text in zip(ids, swapped, strict=True)])):
        inputs = write_jsonl(tmp_path / f"{name}.jsonl", documents)
        prepare(PrepareOptions((str(inputs),), tmp_path / "tokenizer", tmp_path / name, split="80,10,10", id_field="id"))
    one, other = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "other")
    with pytest.raises(DataError, match="Document 0 of split 'train' is not the same text"):
        compare_datasets(one, other)
    fewer = open_dataset(arm(tmp_path, "fewer", texts=PLAIN_TEXTS[:50]))
    with pytest.raises(DataError, match="do not hold the same documents"):
        compare_datasets(one, fewer)


def test_documents_that_cannot_be_encoded_again_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    KINDS["byte-level"](tmp_path / "tokenizer")
    info = open_dataset(arm(tmp_path, "vanilla"))
    reader, half = IndexedReader(info.splits["train"].prefix), load(info.tokenizer_dir).token_bytes.index(b"\xe6")
    ids = np.memmap(info.splits["train"].prefix + ".bin", dtype=reader.dtype, mode="r+")
    ids[0] = half  # the first byte of a character, without the others
    ids.flush()
    assert describe_treatment(info, most_documents=None)["compared"]["left_out"] == {NOT_UTF8: 1}
    with pytest.raises(DataError, match=r"No document .* \(1 not-utf8\)"):
        one_document = {"train": info.splits["train"]}
        describe_treatment(type(info)(**{**vars(info), "splits": one_document}), most_documents=1)


def test_documents_too_long_to_encode_again_are_counted_and_shown_as_stored(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = open_dataset(study / "treated")
    lengths = IndexedReader(info.splits["train"].prefix).lengths
    monkeypatch.setattr(treatment, "LONGEST_TOKENS", int(np.median(lengths)))
    found = describe_treatment(info, most_documents=None)["compared"]
    assert found["left_out"][treatment.TOO_LONG] + found["count"] == found["of"] == len(PLAIN_TEXTS)
    assert found["left_out"][treatment.TOO_LONG] >= (lengths > np.median(lengths)).sum() > 0
    monkeypatch.setattr(treatment, "LONGEST_TOKENS", 0)
    with pytest.raises(DataError, match="No document"):
        describe_treatment(info)
    (shown,) = treatment.side_by_side(info, "train", 1, 10)
    assert shown["before"] is None and len(shown["after"]) == 10


def test_sentences_and_control_tokens_at_both_ends_are_told_from_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    KINDS["metaspace"](tmp_path / "tokenizer")
    settings = {"eos_token": "<eos>", "unk_token": "<unk>", "bos_token": "<unk>"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    inputs = str(write_jsonl(tmp_path / "in.jsonl", PLAIN_TEXTS))
    options = PrepareOptions((inputs,), tmp_path / "tokenizer", tmp_path / "vanilla", split="80,10,10", sentences=True, prepend_bos=True)
    prepare(options)
    prepare(replace(options, out=tmp_path / "treated", plugin="stochastok"))
    vanilla, treated = open_dataset(tmp_path / "vanilla"), open_dataset(tmp_path / "treated")
    sentences = sum(len(IndexedReader(split.prefix)) for split in vanilla.splits.values())
    found, compared = describe_treatment(treated, most_documents=None), compare_datasets(vanilla, treated)
    assert found["compared"] == {"unit": "sentences", "count": sentences, "of": sentences, "left_out": {}}
    assert sentences > len(PLAIN_TEXTS) and compared["compared"]["count"] == sentences
    assert found["tokens"]["before"] == sum(split.tokens - 2 * split.documents for split in vanilla.splits.values())
    assert found["ids_changed"] == compared["ids_changed"] > 0
    report = json.loads(run(data.app, "inspect", tmp_path / "treated", "--json", "--no-treatment"))
    split = report["splits"]["train"]
    assert split["bytes_per_token"] == pytest.approx(split["bytes"] / (split["tokens"] - 2 * split["documents"]), abs=1e-4)
    assert split["tokens_per_document"]["mean"] == pytest.approx(split["tokens"] / split["documents"], abs=0.1)


def test_affix_lists_are_checked(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="klingon"):
        run(data.app, "inspect", study / "treated", "--affixes", "klingon")
    for text in ("prefixes: 5", "- a", "{}", "prefixes: [1]"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"bad\.yaml"):
            run(data.app, "inspect", study / "treated", "--affixes", tmp_path / "bad.yaml")


def test_different_tokenizers_are_compared_by_tokens_only(tmp_path: Path) -> None:
    infos: list[Any] = []
    for kind in ("byte-level", "metaspace"):
        (tmp_path / kind).mkdir()
        KINDS[kind](tmp_path / kind / "tokenizer")
        infos.append(open_dataset(arm(tmp_path / kind, "vanilla")))
    compared = compare_datasets(*infos)
    assert not compared["same_tokenizer"] and "ids_changed" not in compared and compared["tokens_ratio"] != 1
