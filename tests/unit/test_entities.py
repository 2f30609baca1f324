"""Entities from labels and their matches: as seqeval counts them, and as HIPE's definitions say on cases written out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.entities import (
    SCHEMES,
    Decoded,
    Entity,
    decode,
    detect_scheme,
    encode,
    fuzzy_matches,
    restrict,
    split_label,
    strict_matches,
)

TYPES = ("PER", "LOC")
IOB = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in TYPES)])
BIOES = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in TYPES)])


def pairs_of(labels: Any) -> Any:
    """Two sequences of the same length."""
    return st.integers(1, 12).flatmap(lambda size: st.tuples(*[st.lists(labels, min_size=size, max_size=size)] * 2))


@given(sentences=st.lists(pairs_of(IOB), min_size=1, max_size=4))
def test_strict_counts_are_those_of_seqeval_in_strict_mode(sentences: list[tuple[list[str], list[str]]]) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2

    right = predicted = matched = 0
    for gold, found in sentences:
        one, other = decode(gold, "iob2").entities, decode(found, "iob2").entities
        right, predicted, matched = right + len(one), predicted + len(other), matched + len(strict_matches(one, other))
    golds, founds = map(list, zip(*sentences, strict=True))
    mine = (matched / max(1, predicted), matched / max(1, right), 2 * matched / max(1, predicted + right))
    for score, value in zip((precision_score, recall_score, f1_score), mine, strict=True):
        assert score(golds, founds, mode="strict", scheme=IOB2, zero_division=0) == pytest.approx(value)


@pytest.mark.parametrize(("labels", "scheme", "name"), [(IOB, "iob2", "IOB2"), (BIOES, "bioes", "IOBES")])
def test_entities_are_those_of_seqeval(labels: Any, scheme: Any, name: str) -> None:
    import seqeval.scheme

    @given(sentence=st.lists(labels, min_size=1, max_size=12))
    def check(sentence: list[str]) -> None:
        (expected,) = seqeval.scheme.Entities([sentence], getattr(seqeval.scheme, name)).entities
        assert [(one.start, one.end, one.type) for one in decode(sentence, scheme).entities] == [
            (one.start, one.end, one.tag) for one in expected
        ]

    check()


@given(labels=st.lists(IOB, max_size=12), scheme=st.sampled_from(SCHEMES))
def test_entities_written_as_labels_are_read_back(labels: list[str], scheme: Any) -> None:
    entities = decode(labels, "iob1").entities
    assert decode(encode(len(labels), entities, scheme), scheme) == Decoded(entities, ())


def test_a_label_that_continues_nothing_is_no_entity_and_is_named() -> None:
    decoded = decode(["I-PER", "O", "B-LOC", "I-PER"], "iob2", offset=10)
    assert decoded.entities == (Entity(12, 13, "LOC"),)
    assert decoded.invalid == (10, 13)


def test_the_schemes_are_told_apart_by_what_they_allow() -> None:
    assert detect_scheme([["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC"]]) == "iob2"
    assert detect_scheme([["I-PER", "I-PER", "B-PER", "O", "I-LOC"]]) == "iob1"
    assert decode(["I-PER", "I-PER", "B-PER", "O", "I-LOC"], "iob1").entities == (
        Entity(0, 2, "PER"),
        Entity(2, 3, "PER"),
        Entity(4, 5, "LOC"),
    )
    assert detect_scheme([["B-PER", "E-PER", "S-LOC"]]) == "bioes"
    assert detect_scheme([["B-PER", "L-PER", "U-LOC"]]) == "bioes"  # BILOU
    assert decode(["B-PER", "I-PER", "L-PER", "U-LOC"], "bioes").entities == (Entity(0, 3, "PER"), Entity(3, 4, "LOC"))
    assert detect_scheme([["B-PER", "O", "I-PER"]]) is None
    assert detect_scheme([["B-PER", "O", "E-PER"]]) is None


@pytest.mark.parametrize("label", ["", "PER", "B", "B-", "-PER", "X-PER", "b-PER", "_", "B_PER"])
def test_what_is_no_label_is_seen(label: str) -> None:
    assert split_label(label) is None


# Each case: gold, predicted, strict matches, fuzzy matches (as gold mentions).
A, B, C = Entity(0, 2, "PER"), Entity(3, 5, "PER"), Entity(6, 7, "LOC")
HIPE_CASES = {
    "exact": ([A, C], [A, C], [A, C], [A, C]),
    "boundary: too long": ([A], [Entity(0, 3, "PER")], [], [A]),
    "boundary: one word of two": ([A], [Entity(1, 2, "PER")], [], [A]),
    "type": ([A], [Entity(0, 2, "LOC")], [], []),
    "type and boundary": ([A], [Entity(1, 3, "LOC")], [], []),
    "missed": ([A, C], [A], [A], [A]),
    "spurious": ([A], [A, Entity(8, 9, "LOC")], [A], [A]),
    "one prediction over two mentions counts once": ([A, B], [Entity(0, 5, "PER")], [], [A]),
    "two predictions in one mention count once": ([Entity(0, 5, "PER")], [A, B], [], [Entity(0, 5, "PER")]),
    "touching is not overlapping": ([A], [Entity(2, 3, "PER")], [], []),
    "a chain pairs as many as it can": ([A, B], [Entity(1, 4, "PER"), Entity(4, 6, "PER")], [], [A, B]),
    "a prediction takes the first that it overlaps": ([Entity(0, 1, "LOC"), B], [Entity(0, 5, "PER")], [], []),
    "a part of another type takes the mention, too": ([A], [Entity(0, 1, "LOC"), Entity(1, 2, "PER")], [], []),
    "nothing at all": ([], [], [], []),
}


@pytest.mark.parametrize("case", HIPE_CASES)
def test_strict_and_fuzzy_matches_follow_hipe(case: str) -> None:
    gold, predicted, strict, fuzzy = HIPE_CASES[case]
    assert strict_matches(gold, predicted) == strict
    assert fuzzy_matches(gold, predicted) == fuzzy


@given(labels=pairs_of(IOB))
def test_fuzzy_matches_follow_the_rule_word_by_word_and_include_the_strict_ones(labels: tuple[list[str], list[str]]) -> None:
    gold, predicted = (decode(one, "iob1").entities for one in labels)
    taken, matched = [], []
    for guess in predicted:
        words = set(range(guess.start, guess.end))
        free = [one for one in gold if words & set(range(one.start, one.end)) and one not in taken]
        taken += free[:1]
        matched += [one for one in free[:1] if one.type == guess.type]
    assert fuzzy_matches(gold, predicted) == matched
    assert set(strict_matches(gold, predicted)) <= set(matched)


def test_a_lenient_reading_lets_an_i_begin_an_entity() -> None:
    labels = ["I-PER", "O", "B-LOC", "I-PER", "B-PER", "I-PER"]
    assert decode(labels, "lenient").entities == (Entity(0, 1, "PER"), Entity(2, 3, "LOC"), Entity(3, 4, "PER"), Entity(4, 6, "PER"))
    assert decode(labels, "lenient").invalid == ()


def test_a_part_of_the_words_keeps_what_is_left_of_entities() -> None:
    entities = (Entity(0, 2, "PER"), Entity(2, 3, "LOC"), Entity(3, 6, "PER"))
    assert restrict(entities, [True, True, False, True, False, True]) == (Entity(0, 2, "PER"), Entity(2, 4, "PER"))
    assert restrict(entities, [True, False, True, False, True, False]) == (Entity(0, 1, "PER"), Entity(1, 2, "LOC"), Entity(2, 3, "PER"))
    assert restrict(entities, [True, True, False, False, True, True]) == (Entity(0, 4, "PER"),)  # without its B it joins the one before
    assert restrict(entities, [True] * 6) == entities
    assert restrict(entities, [False] * 6) == ()
