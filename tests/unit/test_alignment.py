"""Marks of a generated text, sought in the text that it should repeat."""

from __future__ import annotations

import functools
import itertools

from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.alignment import align, find_marks, read_marks
from evaluation.metrics.entities import Entity

PIECES = st.lists(st.sampled_from("abc"), max_size=9)


def longest(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """Length of a longest common subsequence, by its definition."""

    @functools.cache
    def rest(row: int, column: int) -> int:
        if row == len(left) or column == len(right):
            return 0
        if left[row] == right[column]:
            return 1 + rest(row + 1, column + 1)
        return max(rest(row + 1, column), rest(row, column + 1))

    return rest(0, 0)


@given(source=PIECES, output=PIECES)
def test_an_alignment_is_a_longest_common_subsequence(source: list[str], output: list[str]) -> None:
    found = align(source, output)
    pairs = [(int(place), number) for number, place in enumerate(found) if place >= 0]
    assert all(source[place] == output[number] for place, number in pairs)
    assert all(one[0] < other[0] for one, other in itertools.pairwise(pairs))
    assert len(pairs) == longest(tuple(source), tuple(output))


def found(text: str, output: str) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Names and labels in a text whose words are separated by spaces, and the labels that are misplaced."""
    words = text.split()
    result = find_marks(words, [True] * len(words), output)
    return [(" ".join(words[one.start : one.end]), one.type) for one in result.entities], result.misplaced


def test_marks_are_read_with_their_pieces() -> None:
    assert read_marks("In [ New York | LOC ] , [x] |") == (["In", "New", "York", ",", "[", "x", "]", "|"], [(1, 3, "LOC")])


def test_marks_are_found_where_their_words_stand() -> None:
    assert found("Anna saw New York .", "[Anna | PER] saw [New York | LOC].") == ([("Anna", "PER"), ("New York", "LOC")], ())
    # The second of two equal words is marked.
    words = ["York", "is", "not", "York"]
    assert find_marks(words, [True] * 4, "York is not [York|LOC]", offset=7).entities == (Entity(10, 11, "LOC"),)


def test_text_left_out_or_put_in_moves_nothing() -> None:
    assert found("On Monday Anna saw New York again", "Anna saw, I think, [New York | LOC] again") == ([("New York", "LOC")], ())


def test_a_name_that_the_source_does_not_have_is_misplaced() -> None:
    assert found("Anna saw Rome today .", "[Anna | PER] saw [Rom | LOC] today .") == ([("Anna", "PER")], ("LOC",))
    assert found("Anna saw Rome today .", "[Anna | PER] saw Rome today . [Bob | PER]") == ([("Anna", "PER")], ("PER",))
    # Words of the source, but not side by side there.
    assert found("Anna Maria saw Rome", "[Anna saw | PER] Rome") == ([], ("PER",))
    assert found("Anna saw Rome today", "Anna [ | PER] saw [..|LOC] Rome today") == ([], ("PER", "LOC"))


def test_an_output_about_something_else_has_no_entities() -> None:
    result = find_marks(["Anna", "saw", "Rome", "today", "."], [True] * 5, "[Anna | PER]")
    assert (result.entities, result.misplaced, result.is_aligned) == ((), ("PER",), False)
    empty = find_marks(["Anna", "saw", "Rome"], [True] * 3, "")
    assert (empty.entities, empty.misplaced, empty.share) == ((), (), 0.0)


def test_words_that_stood_together_on_the_page_are_one_piece() -> None:
    words, spaces = ["in", "Con", "gress", "met"], [True, False, True, True]
    assert find_marks(words, spaces, "in [Congress | ORG] met").entities == (Entity(1, 3, "ORG"),)
    words, spaces = ["New", "-", "York", ",", "met"], [False, False, False, True, True]
    assert find_marks(words, spaces, "[New-York | LOC], met").entities == (Entity(0, 3, "LOC"),)


def test_two_marks_in_one_word_are_one_entity() -> None:
    result = find_marks(["Anglo-French", "war"], [True, True], "[Anglo | LOC]-[French | LOC] war")
    assert (result.entities, result.misplaced) == ((Entity(0, 1, "LOC"),), ("LOC",))


def test_an_endless_output_is_read_to_four_times_its_source() -> None:
    source = ["Anna", "saw", "Rome"]
    late = "x " * 20 + "[Anna | PER] saw Rome"
    assert find_marks(source, [True] * 3, late).share == 0.0
    assert find_marks(source, [True] * 3, "x " * 9 + "[Anna | PER] saw Rome").entities == (Entity(0, 1, "PER"),)
