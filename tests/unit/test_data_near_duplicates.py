"""Near duplicates: signatures estimate the true similarity, and what is left out repeats something that is kept."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.minhash import MinHash, choose_bands, shingle_hashes
from data_tools.near_duplicates import KEPT, DedupOptions, find_matches, remove_near_duplicates
from nemo_ext.common.errors import ConfigError, DataError
from tests.support.small_text import write_jsonl

WORDS = st.lists(st.sampled_from(["araw", "gabi", "Tala", "\u65e5", "x" * 40, "\u00a0y"]), min_size=1, max_size=12).map(" ".join)


def shingles(text: str, words: int) -> set[str]:
    found = text.lower().split()
    return {" ".join(found[start : start + words]) for start in range(max(1, len(found) - words + 1))}


def similarity(one: str, other: str, words: int = 5) -> float:
    return len(shingles(one, words) & shingles(other, words)) / len(shingles(one, words) | shingles(other, words))


def run(folder: Path, documents: list[Any], **options: Any) -> tuple[dict[str, Any], list[Any], list[Any]]:
    write_jsonl(folder / "in.jsonl", documents)
    manifest = remove_near_duplicates(DedupOptions((str(folder / "in.jsonl"),), folder / "out", **options))
    kept, left_out = (
        [json.loads(line) for line in (folder / "out" / name).read_text().splitlines()] for name in ("documents.jsonl", "duplicates.jsonl")
    )
    return manifest, kept, left_out


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(1, 6))
def test_equal_word_runs_have_equal_hashes_wherever_they_stand(texts: list[str], words: int) -> None:
    hashes, starts = shingle_hashes(texts, words)
    ends = [*starts[1:].tolist(), len(hashes)]
    names: dict[int, str] = {}
    for text, start, end in zip(texts, starts.tolist(), ends, strict=True):
        found = text.lower().split()
        runs = [" ".join(found[first : first + words]) for first in range(max(1, len(found) - words + 1))]
        assert len(runs) == end - start
        for value, name in zip(hashes[start:end].tolist(), runs, strict=True):
            assert names.setdefault(value, name) == name
    assert len(set(names.values())) == len(names)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_signatures_do_not_depend_on_the_batch(texts: list[str]) -> None:
    minhash = MinHash(16, 3, 1)
    assert (minhash(texts) == np.concatenate([minhash([text]) for text in texts])).all()


def test_signatures_estimate_the_share_of_common_word_runs() -> None:
    source = random.Random(0)
    vocabulary = [f"w{number}" for number in range(500)]
    minhash, errors = MinHash(128, 5, 1), []
    for _ in range(200):
        one = source.choices(vocabulary, k=200)
        cut = source.randrange(200)
        other = one[:cut] + source.choices(vocabulary, k=200 - cut)
        texts = (" ".join(one), " ".join(other))
        first, second = minhash(texts)
        errors.append(float((first == second).mean()) - similarity(*texts))
    assert abs(np.mean(errors)) < 0.01  # standard error of the mean: 0.5 / sqrt(128 * 200) = 0.003
    assert np.std(errors) < 0.5 / np.sqrt(128)


def test_bands_find_nearly_all_pairs_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.8, 0.9, 1.0):
        bands = choose_bands(128, threshold)
        assert bands.count * bands.rows <= 128
        assert bands.chance(np.array(threshold)) >= 0.99


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), max_size=30), st.sampled_from([0.5, 0.75, 1.0]))
def test_everything_left_out_matches_something_kept_and_bands_of_one_row_miss_nothing(rows: list[list[int]], threshold: float) -> None:
    signatures = np.array(rows, dtype=np.uint32).reshape(-1, 4)
    matches = find_matches(signatures, choose_bands(4, 0.01), threshold)
    kept: list[int] = []
    for document, signature in enumerate(signatures):
        likeness = [(signatures[other] == signature).mean() for other in kept]
        if likeness and max(likeness) >= threshold:
            assert matches.earlier[document] == kept[int(np.argmax(likeness))]
            assert matches.similarity[document] == max(likeness)
        else:
            assert matches.earlier[document] == KEPT
            kept.append(document)


@given(st.lists(st.sampled_from(["a b", "A  b ", "a b c", "c", "\u00e9"]), min_size=1, max_size=12))
def test_of_texts_that_differ_in_case_and_space_the_first_is_kept(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest, kept, left_out = run(Path(folder), [{"text": text, "n": number} for number, text in enumerate(texts)], threshold=1.0)
    firsts: dict[str, int] = {}
    for number, text in enumerate(texts):
        firsts.setdefault(" ".join(text.lower().split()), number)
    assert [document["n"] for document in kept] == list(firsts.values())
    assert len(kept) + len(left_out) == len(texts)
    for entry in left_out:
        assert firsts[" ".join(texts[entry["line"] - 1].lower().split())] == entry["same_as_line"] - 1
        assert entry["similarity"] == 1.0
    assert manifest["skipped"]["near-duplicate"] == len(left_out)


def test_an_edited_copy_is_left_out_with_its_match_and_another_text_stays(tmp_path: Path) -> None:
    source = random.Random(1)
    original = [f"w{source.randrange(5000)}" for _ in range(400)]
    edited = [*original[:200], "changed", *original[201:]]
    half = original[:200] + [f"v{number}" for number in range(200)]
    manifest, kept, left_out = run(tmp_path, [" ".join(words) for words in (half, original, edited)])
    assert [document["text"][:2] for document in kept] == [half[0][:2], original[0][:2]]
    assert [(entry["line"], entry["same_as_line"]) for entry in left_out] == [(3, 2)]
    assert left_out[0]["similarity"] == pytest.approx(similarity(" ".join(original), " ".join(edited)), abs=0.05)
    assert manifest["documents"]["near_duplicates_removed"] == 1


def test_bad_lines_are_counted_and_never_shift_what_is_left_out(tmp_path: Path) -> None:
    documents = ["one two", {"no": 1}, "three", "one two", {"text": ""}, "three"]
    with pytest.raises(DataError, match=r"in\.jsonl:2: missing-text"):
        run(tmp_path, documents)
    manifest, kept, left_out = run(tmp_path, documents, on_bad_line="quarantine")
    assert [document["text"] for document in kept] == ["one two", "three"]
    assert [(entry["line"], entry["same_as_line"]) for entry in left_out] == [(4, 1), (6, 3)]
    assert manifest["skipped"] == {"empty-text": 1, "missing-text": 1, "near-duplicate": 2}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "documents.jsonl",
        "duplicates.jsonl",
        "manifest.json",
        "quarantine.jsonl",
    ]


def test_settings_out_of_range_are_named(tmp_path: Path) -> None:
    for options in ({"threshold": 0.0}, {"threshold": 1.5}, {"words": 0}, {"permutations": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            run(tmp_path, ["a"], **options)
