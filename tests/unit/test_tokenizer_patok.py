"""Patok keeps the text, depends on seed and document id alone, knows affixes by their place, and follows its written law."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import ConfigError
from nemo_ext.tokenizers import TextTokenizer, plugins
from nemo_ext.tokenizers.affix_hits import find_hits, make_hits
from nemo_ext.tokenizers.affix_lists import Affixes, blind_forms, positional_forms, read_affixes
from nemo_ext.tokenizers.characters import character_classes
from nemo_ext.tokenizers.patok_windows import TRIES
from nemo_ext.tokenizers.split_table import build_split_table
from recipes.bench.patok_law import WrittenLaw
from tests.support.small_text import TEXTS
from tests.support.tokenizer_kinds import KINDS, documents_of, ragged, spelled, total_variation

SEEDS = st.integers(0, 2**70)
AFFIXES = read_affixes("filipino", None)


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return KINDS[request.param](tmp_path_factory.mktemp("tokenizer") / request.param)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return KINDS["byte-level"](tmp_path_factory.mktemp("tokenizer") / "byte-level")


@cache
def patok(tokenizer: TextTokenizer, *assignments: str) -> plugins.Plugin:
    return plugins.create("patok", plugins.parse_settings("patok", assignments), tokenizer)


def cut(tokenizer: TextTokenizer, documents: list[list[int]], numbers: list[int], seed: int, *assignments: str) -> list[list[int]]:
    plugin = patok(tokenizer, *assignments)
    plugin.counts.clear()
    batch = ragged(documents)
    result = plugins.apply(plugin, batch, np.array(numbers, dtype=np.uint64), seed, tokenizer.vocab_size)
    assert documents_of(batch) == documents
    return documents_of(result)


@given(data=st.data(), position_aware=st.booleans(), seed=SEEDS)
def test_any_ids_keep_their_text_their_fixed_tokens_and_the_vocabulary(
    tokenizer: TextTokenizer, data: st.DataObject, position_aware: bool, seed: int
) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12), max_size=5))
    settings = "contract_prop=2", "expand_prop=0.5", f"position_aware={position_aware}"
    result = cut(tokenizer, documents, list(range(len(documents))), seed, *settings)
    ordinary = tokenizer.spelling.ordinary
    for before, after in zip(documents, result, strict=True):
        assert spelled(tokenizer, before) == spelled(tokenizer, after)
        assert [token for token in before if not ordinary[token]] == [token for token in after if not ordinary[token]]


@given(texts=st.lists(st.text(st.sampled_from("maglrokin ñé日😀\n'-1"), max_size=30), max_size=4), seed=SEEDS)
def test_any_text_keeps_its_bytes(tokenizer: TextTokenizer, texts: list[str], seed: int) -> None:
    documents = documents_of(tokenizer.encode_batch(texts))
    result = cut(tokenizer, documents, list(range(len(documents))), seed, "contract_prop=2")
    assert [spelled(tokenizer, ids) for ids in result] == [spelled(tokenizer, ids) for ids in documents]


@given(order=st.permutations(range(8)), middle=st.integers(0, 8), seed=SEEDS)
def test_a_document_is_cut_alike_in_any_batch_and_order(tokenizer: TextTokenizer, order: list[int], middle: int, seed: int) -> None:
    documents = documents_of(tokenizer.encode_batch(TEXTS[:8]))
    whole = cut(tokenizer, documents, list(range(8)), seed)
    parts = [cut(tokenizer, [documents[number] for number in part], part, seed) for part in (order[:middle], order[middle:])]
    assert list(chain(*parts)) == [whole[number] for number in order]


def hits_of(text: str, affixes: Affixes, blind: bool = False) -> set[tuple[str, int]]:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    hits = make_hits(len(data), 100)
    assert find_hits(data, affixes, character_classes(), blind, hits)
    found = set()
    for _, start, end, affix in hits.hits[: hits.used[0]].tolist():
        found.add((AFFIXES[affix][1] + ":" + data[start:end].tobytes().decode(), start))
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ang maglaro", {("mag: mag", 3), ("ma: ma", 3)}),
        ("MAGLARO", {("mag:MAG", 0), ("ma:MA", 0)}),
        ("kumain", {("um:um", 1), ("in:in", 4)}),
        ("ngumiti", {("um:um", 2)}),
        ("sulatan", {("an:an", 5)}),
        ("inumin", {("in:in", 0), ("in:in", 4), ("i:i", 0)}),
        ("mag-aral", {("mag:mag", 0), ("ma:ma", 0)}),
        ("ito", {("i:i", 0)}),
        ("“tagasulat” ", {("taga:taga", 3), ("tag:tag", 3)}),
        ("bumangon", {("um:um", 1)}),
        ("ang an na um", set()),
    ],
)
def test_affixes_are_found_by_their_place_in_a_word(text: str, found: set[tuple[str, int]]) -> None:
    assert hits_of(text, positional_forms(AFFIXES)) == found


def test_blind_matching_finds_surface_forms_anywhere() -> None:
    found = hits_of("poging Mag", blind_forms(AFFIXES), blind=True)
    assert {("in:in", 3), ("mag: Mag", 6), ("mag:Mag", 7), ("ma:Ma", 7)} <= found


def test_results_are_distributed_as_the_written_law_says(byte_level: TextTokenizer) -> None:
    text, samples = "Ang nagtubo ay pagdahon kasulatan", 8_000
    ids = byte_level.encode_batch([text]).ids.tolist()
    law, windows = WrittenLaw(byte_level, text, random.Random(1)), 4
    expected, again = (Counter(law.contracted(ids, windows) for _ in range(samples)) for _ in range(2))
    settings = f"contract_prop={windows / len(ids) + 1e-9}", "expand_prop=0"
    found = Counter(map(tuple, cut(byte_level, [ids] * samples, list(range(samples)), 1, *settings)))
    counts = patok(byte_level, *settings).counts
    assert len(expected) > 15 and counts["windows"] == windows * samples
    assert total_variation(found, expected) < max(1.2 * total_variation(expected, again), 0.015)
    assert counts["draws_refused"] == pytest.approx(law.counts["draws_refused"] / 2, rel=0.05)


def test_windows_and_splits_are_counted_with_what_became_of_them(byte_level: TextTokenizer) -> None:
    documents = documents_of(byte_level.encode_batch(TEXTS))
    result = cut(byte_level, documents, list(range(len(TEXTS))), 1)
    counts = patok(byte_level).counts
    assert counts["windows"] == sum(math.floor(0.9 * len(ids)) for ids in documents)
    assert counts["windows"] == sum(counts[f"windows_{fate}"] for fate in ("recut", "kept", "given_up", "without_tokens"))
    assert counts["attempts"] == counts["splits"] + counts["unsplittable"] + counts["attempts_given_up"]
    assert counts["tokens_after"] == sum(map(len, result)) > counts["tokens_before"]
    assert sum(count for name, count in counts.items() if name.startswith("affix:")) > 100 and counts["affix:mag-"] > 20


def test_text_of_affixes_alone_ends(byte_level: TextTokenizer) -> None:
    ids = byte_level.encode_batch(["mag-a" * 40]).ids.tolist()
    settings = "affix_awareness=1", "same_start_awareness=1", "expand_prop=1", "contract_prop=1"
    (result,) = cut(byte_level, [ids], [1], 1, *settings)
    assert spelled(byte_level, result) == b"mag-a" * 40


def test_an_affix_token_refuses_its_window_and_is_never_split(byte_level: TextTokenizer) -> None:
    ids = byte_level.encode_batch([" nagbunga"]).ids.tolist()
    assert [byte_level.token_bytes[token] for token in ids] == [b" nag", b"bunga"]
    never = "affix_awareness=1", "same_start_awareness=1", "num_toks_to_cont=[2]", "contract_prob=[1]", "contract_prop=1", "expand_prop=1"
    results = cut(byte_level, [ids] * 50, list(range(50)), 1, *never)
    counts = patok(byte_level, *never).counts
    assert counts["windows"] == counts["windows_given_up"] == 100 and counts["draws_refused"] + counts["draws_invalid"] == 100 * TRIES
    assert all(result[0] == ids[0] for result in results) and any(len(result) > 2 for result in results)


def test_seeds_and_documents_have_random_choices_of_their_own(byte_level: TextTokenizer) -> None:
    documents = documents_of(byte_level.encode_batch([TEXTS[5]] * 3))
    one, two = cut(byte_level, documents, [1, 2, 1], 1), cut(byte_level, documents, [1, 2, 1], 2)
    assert one[0] == one[2] != one[1] and one[0] != two[0]


@pytest.mark.parametrize(
    ("position_aware", "golden"),
    [
        (True, "M|ag|la|k|a|d| |t|ay|o| na|ng| |d|a|h|a|n|-|d|a|h|a|n|;| k|um|a|i|n| |a|ng| m|g|a| |b|a|t|a| |s|a| ka|i|n|a|n|."),
        (False, "M|a|g|la|k|a|d| |t|ay|o| na|ng| |d|a|h|a|n|-|d|a|h|a|n|;| k|um|a|i|n| |a|ng| |m|g|a| |b|a|t|a| |s|a| ka|i|n|a|n|."),
    ],
)
def test_a_seed_gives_the_same_tokens_in_every_version(byte_level: TextTokenizer, position_aware: bool, golden: str) -> None:
    text = "Maglakad tayo nang dahan-dahan; kumain ang mga bata sa kainan."
    (after,) = cut(byte_level, documents_of(byte_level.encode_batch([text])), [7], 1234, f"position_aware={position_aware}")
    assert "|".join(spelled(byte_level, [token]).decode() for token in after) == golden


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("affix_awareness=1.5", r"affix_awareness=1.5 is no probability"),
        ("contract_prob=[0.5,0.5]", r"do not fit"),
        ("num_toks_to_cont=[0,1,2]", r"do not fit"),
        ("contract_prob=[0.5,0.5,0.5]", r"sums to 1.5"),
        ("language=klingon", r"no affix list for language='klingon'.*filipino.*affixes=PATH"),
        ("affixes=/nowhere.yaml", r"/nowhere.yaml cannot be read"),
        ("contract_prop=-1", r"patok.contract_prop=-1.0 is too small"),
    ],
)
def test_settings_that_make_no_sense_are_refused(byte_level: TextTokenizer, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        patok.__wrapped__(byte_level, assignment)


@pytest.mark.parametrize(
    ("content", "message"), [("[mag]", "found a list"), ("prefix: [mag]", "found 'prefix'"), ("prefixes: [no]", "False is no affix")]
)
def test_files_that_are_no_affix_lists_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_affixes("filipino", str(tmp_path / "list.yaml"))


def test_an_affix_list_of_the_users_own_is_followed(byte_level: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("suffixes: [ro]\n")
    cut(byte_level, documents_of(byte_level.encode_batch(TEXTS)), list(range(len(TEXTS))), 1, f"affixes={tmp_path / 'list.yaml'}")
    counts: dict[str, Any] = patok(byte_level, f"affixes={tmp_path / 'list.yaml'}").counts
    assert [name for name in counts if name.startswith("affix:")] == ["affix:-ro"]


def test_tokens_split_by_patok_are_in_the_split_table(byte_level: TextTokenizer) -> None:
    table = build_split_table(byte_level.spelling)
    pairs = {(left, right) for left, right in zip(table.left.tolist(), table.right.tolist(), strict=True)}
    ids = byte_level.encode_batch(["laro"]).ids.tolist()
    for (result,) in ([cut(byte_level, [ids], [number], 1, "contract_prop=0", "expand_prop=1")[0]] for number in range(20)):
        assert result == ids or tuple(result[:2]) in pairs
