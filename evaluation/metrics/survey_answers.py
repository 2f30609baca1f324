"""Numbers in text: the scale that a survey question states, and the answer that a model gave on it.

Both are read strictly. A scale is only what the question says in the words of the SocSci210 data set ("Only return an integer from
1 to 7", "Only return 1 for Yes or 2 for No"), never what people happened to answer. An answer is a number on that scale and nothing
else; whatever else a model says is a parse failure with a reason, and no number is made up for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LARGEST_SCALE = 10_001  # levels; each person's answers take 8 bytes for every one
MOST_DIGITS = 15

NO_SCALE = "no stated scale"
SEVERAL_SCALES = "several stated scales"
TOO_MANY_LEVELS = f"a scale of more than {LARGEST_SCALE:,} levels"

EMPTY = "empty"
NO_NUMBER = "no number"  # also "seven": a word may be part of a sentence that says something else
AMONG_WORDS = "a number among words"
SEVERAL_NUMBERS = "several numbers"  # "7 or 8", "5-7", "6/7"
NOT_WHOLE = "not a whole number"
OFF_SCALE = "off the scale"
CUT_OFF = "cut off"  # the longest answer allowed ended here: "1" may have been the beginning of "10"
FAILURES = (EMPTY, NO_NUMBER, AMONG_WORDS, SEVERAL_NUMBERS, NOT_WHOLE, OFF_SCALE, CUT_OFF)

_WHOLE = r"(-?[0-9]+)(?![0-9]|[.,][0-9])"  # not the 100 of 100,000
_INSTRUCTION = re.compile(r"only return ", re.IGNORECASE)
_RANGE = re.compile(
    rf"(?:an? )?(?:integer|whole number|number) (?:from|between) {_WHOLE}(?: ?\([^)]*\))?,? (?:to|and) {_WHOLE}", re.IGNORECASE
)
_OPTION = re.compile(rf"{_WHOLE} (?:for|if)\b", re.IGNORECASE)
_MINUS = re.compile(r"\u2212|(?<!\S)\u2013(?=[0-9])")  # a minus sign, or an en dash in its place
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_ANSWER = re.compile(rf"(?:(?:answer|response) ?: ?)?([+-]?{_NUMBER})\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Scale:
    """Whole numbers from `minimum` to `maximum`."""

    minimum: int
    maximum: int

    @property
    def width(self) -> int:
        """Distance of the ends: what distances between answers are divided by."""
        return self.maximum - self.minimum

    @property
    def levels(self) -> int:
        """How many answers there are."""
        return self.width + 1

    @property
    def values(self) -> range:
        """The answers."""
        return range(self.minimum, self.maximum + 1)

    def __contains__(self, value: int) -> bool:
        return self.minimum <= value <= self.maximum

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum}"


def check_scale(minimum: int, maximum: int) -> Scale | str:
    """The scale with these ends, or why there is none."""
    if minimum >= maximum:
        return NO_SCALE
    scale = Scale(minimum, maximum)
    return scale if scale.levels <= LARGEST_SCALE else TOO_MANY_LEVELS


def stated_scale(text: str) -> Scale | str:
    """The scale that a question states, or why it states none.

    Options ("1 for Yes or 2 for No") are a scale when they are whole numbers without a gap.
    """
    found = [_scale_of(part) for part in _INSTRUCTION.split(_MINUS.sub("-", text))[1:]]
    scales = {scale for scale in found if scale != NO_SCALE}
    if len(scales) != 1:
        return SEVERAL_SCALES if scales else NO_SCALE
    return scales.pop()


def _scale_of(instruction: str) -> Scale | str:
    if match := _RANGE.match(instruction):
        return check_scale(int(match[1]), int(match[2]))
    if not _OPTION.match(instruction):
        return NO_SCALE
    values = sorted({int(value) for value in _OPTION.findall(instruction)})
    gapless = values == list(range(values[0], values[-1] + 1))
    return check_scale(values[0], values[-1]) if gapless else NO_SCALE


def parse_answer(text: str, finished: bool, scale: Scale) -> int | str:
    """The number that `text` answers, or why it is none.

    Read is the first line with anything in it. It is a whole number on the scale, which "Answer:" or "Response:" may precede and a full
    stop may follow. `finished` is False where the model would have gone on; then the line must have ended.
    """
    line, end_of_line, _ = _MINUS.sub("-", text).lstrip().partition("\n")
    match = _ANSWER.fullmatch(line.strip())
    if not match:
        numbers = len(re.findall(_NUMBER, line))
        return (NO_NUMBER if line.strip() else EMPTY) if not numbers else AMONG_WORDS if numbers == 1 else SEVERAL_NUMBERS
    whole, _, fraction = match[1].partition(".")
    digits = whole.lstrip("+-0") or "0"  # int() takes no thousands of digits, zeros or not
    if len(digits) > MOST_DIGITS or int(digits) > max(abs(scale.minimum), abs(scale.maximum)):
        return OFF_SCALE  # and more digits would not bring it back
    value = -int(digits) if whole.startswith("-") else int(digits)
    if not finished and not end_of_line:
        return CUT_OFF
    if fraction.strip("0"):
        return NOT_WHOLE
    return value if value in scale else OFF_SCALE
