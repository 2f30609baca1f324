"""Scales that questions state, and answers that models write: read strictly, never made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import survey_answers
from evaluation.metrics.survey_answers import (
    AMONG_WORDS,
    CUT_OFF,
    EMPTY,
    NO_NUMBER,
    NO_SCALE,
    NOT_WHOLE,
    OFF_SCALE,
    SEVERAL_NUMBERS,
    Scale,
    parse_answer,
    stated_scale,
)

NINE = Scale(1, 9)


@pytest.mark.parametrize(
    ("question", "scale"),
    [
        ("How fair? Only return an integer from 1 to 7, where 1 means Unfair and 7 means Fair, nothing else.", Scale(1, 7)),
        ("Only return a number from 0 to 100, nothing else.", Scale(0, 100)),
        ("On a scale of 0 to 10, how fair? Only return an integer from 0 to 10 representing fairness.", Scale(0, 10)),
        ("How much? Only return an integer from 1 ($0\u2013$20) to 7 (More than $120), nothing else.", Scale(1, 7)),
        ("Only return an integer between \u22123 and 3, nothing else.", Scale(-3, 3)),
        ("Only return an integer from \u20133 to 3, nothing else.", Scale(-3, 3)),
        ("Buy it? Only return 1 for Yes or 2 for No, nothing else.", Scale(1, 2)),
        ("Only return 1 for \u2018Worse\u2019, 2 for \u2018Better\u2019, or 3 for \u2018No difference\u2019, nothing else.", Scale(1, 3)),
        ("Typical? Only return 1 for Yes or 0 for No, nothing else.", Scale(0, 1)),
        ("Only return an integer from 0 to 2800 representing dollars, nothing else.", Scale(0, 2800)),
        ("Only return 1 for the first scenario; 2 for the second scenario, nothing else.", Scale(1, 2)),
    ],
)
def test_a_scale_is_what_the_question_says(question: str, scale: Scale) -> None:
    assert stated_scale(question) == scale


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Only return an integer representing dollars, nothing else.", NO_SCALE),
        ("On a scale from 1 to 7, how fair is it?", NO_SCALE),  # nobody was told to answer in numbers
        ("Only return an integer from 0 to 100,000, nothing else.", NO_SCALE),  # not 0 to 100
        ("Only return 1 for Yes, 2 for No or 99 for Not sure, nothing else.", NO_SCALE),  # 99 is no distance of 98
        ("Only return an integer from 7 to 1.", NO_SCALE),
        ("Only return an integer from 1 to 7. Only return an integer from 1 to 5.", survey_answers.SEVERAL_SCALES),
        ("Only return an integer from 0 to 99999.", survey_answers.TOO_MANY_LEVELS),
    ],
)
def test_what_is_no_scale_is_refused_with_the_reason(question: str, reason: str) -> None:
    assert stated_scale(question) == reason


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", 7),
        (" \n 7 \nBecause I am", 7),
        ("Response: 7.", 7),
        ("answer:7", 7),
        ("7.0", 7),
        ("+7", 7),
        ("", EMPTY),
        ("\n \n", EMPTY),
        ("seven", NO_NUMBER),
        ("I would say 7", AMONG_WORDS),
        ("7 (agree)", AMONG_WORDS),
        ("7 or 8", SEVERAL_NUMBERS),
        ("7-8", SEVERAL_NUMBERS),
        ("7/9", SEVERAL_NUMBERS),
        ("7, because of 2", SEVERAL_NUMBERS),
        ("6.5", NOT_WHOLE),
        ("0", OFF_SCALE),
        ("10", OFF_SCALE),
        ("-7", OFF_SCALE),
        ("9" * 100, OFF_SCALE),
        ("9" * 5000, OFF_SCALE),  # more digits than int() takes
        ("0" * 5000, OFF_SCALE),
        ("0" * 5000 + "7", 7),
    ],
)
def test_an_answer_is_a_number_on_the_scale_or_a_named_failure(text: str, answer: int | str) -> None:
    assert parse_answer(text, True, NINE) == answer
    assert isinstance(answer, int) or answer in survey_answers.FAILURES


def test_a_number_that_was_cut_off_is_not_taken_for_its_beginning() -> None:
    assert parse_answer("1", False, Scale(0, 10)) == CUT_OFF
    assert parse_answer("1.", False, Scale(0, 10)) == CUT_OFF
    assert parse_answer("1\nNext question", False, Scale(0, 10)) == 1
    assert parse_answer("9" * 100, False, Scale(0, 10)) == OFF_SCALE
    assert parse_answer("\u22122", True, Scale(-3, 3)) == -2


@given(st.text(max_size=30), st.booleans(), st.integers(-50, 50), st.integers(1, 60))
def test_any_text_gives_a_number_on_the_scale_or_a_reason(text: str, finished: bool, minimum: int, width: int) -> None:
    scale = Scale(minimum, minimum + width)
    answer = parse_answer(text, finished, scale)
    assert answer in scale if isinstance(answer, int) else answer in survey_answers.FAILURES


@given(st.integers(-50, 50), st.integers(1, 60), st.data())
def test_every_answer_of_a_scale_is_read(minimum: int, width: int, data: st.DataObject) -> None:
    scale = Scale(minimum, minimum + width)
    value = data.draw(st.sampled_from(list(scale.values)))
    assert parse_answer(str(value), True, scale) == value
    assert stated_scale(f"How? Only return an integer from {scale.minimum} to {scale.maximum}, nothing else.") == scale
