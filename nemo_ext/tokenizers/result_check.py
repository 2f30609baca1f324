"""The proof that a plugin changed how a text is cut and not the text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.spelling import Spelling, same_bytes

UNCHANGED, CUT_ANEW, OTHER_TEXT = range(3)


def compare(before: RaggedBatch, after: RaggedBatch, spelling: Spelling) -> NDArray[np.uint8]:
    """What became of each document [documents]: UNCHANGED ids, text CUT_ANEW, or OTHER_TEXT, which no plugin may make of it."""
    verdicts = np.full(before.documents, UNCHANGED, dtype=np.uint8)
    ids = before.ids.astype(np.int32, copy=False), after.ids.astype(np.int32, copy=False)
    compare_documents(ids[0], before.offsets, ids[1], after.offsets, spelling, verdicts)
    return verdicts


@compiled
def compare_documents(
    before: NDArray[np.int32],
    before_offsets: NDArray[np.int64],
    after: NDArray[np.int32],
    after_offsets: NDArray[np.int64],
    spelling: Spelling,
    verdicts: NDArray[np.uint8],
) -> None:
    """Fill `verdicts`."""
    for document in range(len(verdicts)):
        left = before[before_offsets[document] : before_offsets[document + 1]]
        right = after[after_offsets[document] : after_offsets[document + 1]]
        verdicts[document] = UNCHANGED
        if not same_ids(left, right):
            verdicts[document] = CUT_ANEW if same_spelling(left, right, spelling) else OTHER_TEXT


@compiled
def same_ids(left: NDArray[np.int32], right: NDArray[np.int32]) -> bool:
    """Whether two series of ids are the same."""
    if len(left) != len(right):
        return False
    for position in range(len(left)):  # noqa: SIM110  compiled code has no all()
        if left[position] != right[position]:
            return False
    return True


@compiled
def is_fixed(token: int, spelling: Spelling) -> bool:
    """Whether only the token itself can stand for what it spells: control tokens, but not those that stand for a byte."""
    return not spelling.ordinary[token] and spelling.offsets[token + 1] - spelling.offsets[token] != 1


@compiled
def same_spelling(left: NDArray[np.int32], right: NDArray[np.int32], spelling: Spelling) -> bool:
    """Whether two series of ids spell the same bytes, with the same fixed tokens at the same places."""
    here = there = left_ahead = right_ahead = 0  # tokens passed, and bytes passed of the current ones
    while here < len(left) and there < len(right):
        left_start, right_start = spelling.offsets[left[here]] + left_ahead, spelling.offsets[right[there]] + right_ahead
        left_rest, right_rest = spelling.offsets[left[here] + 1] - left_start, spelling.offsets[right[there] + 1] - right_start
        fixed = is_fixed(left[here], spelling) or is_fixed(right[there], spelling)
        if fixed and (left[here] != right[there] or left_ahead != right_ahead):
            return False
        shared = min(left_rest, right_rest)
        if not same_bytes(spelling.data, left_start, spelling.data, right_start, shared):
            return False
        left_ahead, right_ahead = left_ahead + shared, right_ahead + shared
        if shared == left_rest:
            here, left_ahead = here + 1, 0
        if shared == right_rest:
            there, right_ahead = there + 1, 0
    return here == len(left) and there == len(right)
