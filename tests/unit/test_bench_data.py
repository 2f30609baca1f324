"""The benchmark measures what it says: its text is the same every time, its law is the published one, its goals are read the right way."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from nemo_ext.tokenizers.split_table import build_split_table
from recipes.bench.corpus import documents, made_up_words, write_corpus
from recipes.bench.data import Claim, encode_claims
from recipes.bench.measure import Cost, measure
from recipes.bench.treatments import expand, splits_of, total_variation
from tests.support.tokenizer_kinds import KINDS


def test_text_is_the_same_every_time_and_of_the_size_asked_for(tmp_path: Path) -> None:
    texts = list(documents(500, 5000))
    assert texts == list(documents(500, 5000))
    assert [len(text) for text in texts] == [500] * 10
    assert len(set(texts)) == 10
    lines = [json.loads(line)["text"] for line in write_corpus(tmp_path / "c", 500, 5000, 3 << 20).read_text(encoding="utf-8").splitlines()]
    assert sorted(map(len, lines)) == [500] * 10 + [3 << 20]


def test_made_up_words_are_many_and_different() -> None:
    import numpy

    words = made_up_words(numpy.random.default_rng(0), 5000)
    assert len(set(words)) == 5000


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_the_law_splits_by_the_table_that_the_plugin_has(kind: str, tmp_path: Path) -> None:
    tokenizer = KINDS[kind](tmp_path / kind)
    table, law = build_split_table(tokenizer.spelling), splits_of(tokenizer)
    for token in range(tokenizer.vocab_size):
        pairs = slice(table.offsets[token], table.offsets[token + 1])
        assert list(zip(table.left[pairs].tolist(), table.right[pairs].tolist(), strict=True)) == law.get(token, [])


def test_the_law_spends_its_attempts_and_total_variation_is_between_0_and_1() -> None:
    assert expand([1, 1, 1, 1], 0.5, {1: [(2, 3)]}, random.Random(0)).count(2) <= 2
    assert expand([9], 5.0, {}, random.Random(0)) == [9]
    first, second = Counter({(1,): 2, (2,): 2}), Counter({(1,): 2, (3,): 2})
    assert (total_variation(first, first), total_variation(first, second)) == (0.0, 0.5)


def test_goals_are_read_the_right_way() -> None:
    assert Claim("a", 1.0, 1.1).met and not Claim("a", 1.2, 1.1).met
    assert Claim("a", 1.9, 1.8, at_least=True).met and not Claim("a", 1.7, 1.8, at_least=True).met
    measured = {
        "bare encode_batch": (10, 10),
        "sibol data prepare": (11, 12),
        "sibol data prepare, 2 workers": (12, 6),
        "usual way (pool of 1)": (44, 40),
    }
    costs = {name: {"cpu_s": cpu, "wall_s": wall} for name, (cpu, wall) in measured.items()}
    assert [round(claim.measured, 6) for claim in encode_claims("gpt2", costs)] == [1.1, 0.25, 2.0]


def test_work_is_measured_in_a_process_of_its_own() -> None:
    cost: Cost = measure(busy, 200_000)
    assert cost.result == sum(range(200_000))
    assert 0 <= cost.cpu_s <= cost.wall_s + 1 and cost.peak_bytes > 1 << 20


def busy(count: int):
    return lambda: sum(range(count))
