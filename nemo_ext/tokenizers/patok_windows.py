"""Patok's law in compiled code: windows of tokens joined and cut anew with regard to affixes, then tokens split as StochasTok does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.affix_hits import BLANK, Hits, pair_at
from nemo_ext.tokenizers.compiled import compiled, inlined
from nemo_ext.tokenizers.piece_encoder import FAILED, Encoder, encode_piece
from nemo_ext.tokenizers.random_stream import State, below, unit
from nemo_ext.tokenizers.split_table import SplitTable
from nemo_ext.tokenizers.token_list import (
    AFFIX,
    BEGINS_CHARACTER,
    END,
    ENDS_CHARACTER,
    FLAGS,
    FOLLOWING,
    HEAD,
    ORDINARY,
    START,
    TOKEN,
    USED,
    Document,
    replace,
    split,
)

TRIES = 100  # draws for one window or one split before it is given up, as in the study's code
COUNTS = (
    "windows",  # asked for: floor(contract_prop x tokens)
    "windows_recut",  # encoded to other tokens
    "windows_kept",  # encoded to the tokens that were there
    "windows_given_up",  # every draw was refused or no window
    "windows_without_tokens",  # a piece has no tokens
    "draws_refused",  # because the window holds an affix that is a token
    "draws_invalid",  # window over the end, over control or byte tokens, or cutting a character
    "reduplications",
    "attempts",  # to split: floor(expand_prop x tokens then)
    "splits",
    "unsplittable",
    "attempts_given_up",  # every token drawn was an affix
)
NO_HIT = -1
HIT_FOLLOWING, HIT_START, HIT_END, HIT_AFFIX = range(4)  # columns of Hits.hits, see there
WINDOWS, RECUT, KEPT, GIVEN_UP, WITHOUT_TOKENS, REFUSED, INVALID, REDUPLICATIONS, ATTEMPTS, SPLITS, UNSPLITTABLE, NO_SPLIT = range(12)


class Law(NamedTuple):
    """The settings. A window has `sizes[k]` tokens with probability `shares[k] - shares[k - 1]`; `blind` matches affixes anywhere."""

    contract_prop: float
    expand_prop: float
    affix_awareness: float
    same_start_awareness: float
    sizes: NDArray[np.int64]
    shares: NDArray[np.float64]
    blind: bool


class Work(NamedTuple):
    """Random state, counts (see COUNTS, then a count per affix), and room for the slots of a window and the ids of its pieces."""

    state: State
    counts: NDArray[np.int64]
    window: NDArray[np.int32]
    ids: NDArray[np.int32]


@compiled
def contract(document: Document, law: Law, encoder: Encoder, work: Work) -> None:
    """Cut floor(contract_prop x tokens) windows anew."""
    windows = np.int64(np.floor(law.contract_prop * document.ends[USED]))
    work.counts[WINDOWS] += windows
    for _ in range(windows):
        share, kind = unit(work.state), 0
        while kind < len(law.sizes) - 1 and share >= law.shares[kind]:
            kind += 1
        size = choose_window(document, law, law.sizes[kind], work)
        if size:
            recut(document, law, encoder, work, size)
        else:
            work.counts[GIVEN_UP] += 1


@compiled
def choose_window(document: Document, law: Law, size: int, work: Work) -> np.int64:
    """Draw a window of `size` tokens, or take all tokens when there are fewer; returns its size, 0 when none was found.

    A window that holds an affix as a token is refused with probability affix_awareness.
    """
    used = document.ends[USED]
    if used < size:
        return np.int64(used if collect(document.tokens, document.ends[HEAD], used, work.window) >= 0 else 0)
    for _ in range(TRIES):
        flags = collect(document.tokens, below(work.state, used), size, work.window)
        if flags < 0:
            work.counts[INVALID] += 1
        elif not flags & AFFIX or unit(work.state) >= refusal(document, law, work.window, size):
            return np.int64(size)
        else:
            work.counts[REFUSED] += 1
    return np.int64(0)


@compiled
def collect(tokens: NDArray[np.int32], slot: np.int64, size: int, window: NDArray[np.int32]) -> np.int64:
    """Write `size` slots from `slot` on into `window`; returns all their flags together, or -1 when they are no window."""
    flags, kept = np.int64(0), np.int64(tokens[slot, FLAGS] if size else 0)
    if not kept & BEGINS_CHARACTER:
        return np.int64(-1)
    last = np.int64(0)
    for number in range(size):
        if slot < 0:
            return np.int64(-1)
        window[number], last = slot, np.int64(tokens[slot, FLAGS])
        flags, kept = flags | last, kept & last
        slot = np.int64(tokens[slot, FOLLOWING])
    return flags if kept & ORDINARY and last & ENDS_CHARACTER else np.int64(-1)


@compiled
def refusal(document: Document, law: Law, window: NDArray[np.int32], size: int) -> float:
    """Probability of refusing a window with an affix token: lower when two affixes begin at the same place in it."""
    first, hits, end = document.hits.first, document.hits.hits, document.tokens[window[size - 1], END]
    position = np.int64(document.tokens[window[0], START])
    while position < end:
        hit, found = np.int64(first[position]), 0
        position += np.int64(1) if hit >= 0 else -hit
        while hit >= 0:
            found += hits[hit, HIT_END] <= end
            hit = np.int64(hits[hit, HIT_FOLLOWING])
        if found > 1:
            return law.same_start_awareness
    return law.affix_awareness


@compiled
def recut(document: Document, law: Law, encoder: Encoder, work: Work, size: int) -> None:
    """Join the window and encode it again, with one of its affixes as a piece of its own with probability affix_awareness."""
    text, tokens, hits = document.text, document.tokens, document.hits.hits
    start, end = np.int64(tokens[work.window[0], START]), np.int64(tokens[work.window[size - 1], END])
    found, chosen = count_hits(text, document.hits, start, end, law.blind), np.int64(NO_HIT)
    if found and unit(work.state) <= law.affix_awareness:
        chosen = pick_hit(text, document.hits, start, end, law.blind, below(work.state, found))
    first, last = start, start
    if chosen != NO_HIT:
        first, last = max(np.int64(hits[chosen, HIT_START]), start), np.int64(hits[chosen, HIT_END])
    limit, count = start, np.int64(0)
    for stop in (first, last, end):
        if limit < stop and count != FAILED:
            count = encode_reduplicated(document, limit, stop, law.blind, encoder, work, count)
        limit = stop
    if count == FAILED:
        work.counts[WITHOUT_TOKENS] += 1
        return
    if chosen != NO_HIT:
        work.counts[len(COUNTS) + hits[chosen, HIT_AFFIX]] += 1
    if same_tokens(tokens, work.window, size, work.ids, count):
        work.counts[KEPT] += 1
    else:
        work.counts[RECUT] += 1
        replace(document, work.window, size, work.ids, count)


@inlined
def has_space(text: NDArray[np.uint8], start: int, end: int) -> bool:
    """Whether a surface form has its space."""
    return text[start] == BLANK or text[end - 1] == BLANK


@compiled
def count_hits(text: NDArray[np.uint8], hits: Hits, start: np.int64, end: int, blind: bool) -> np.int64:
    """Affixes in a window that one may be chosen from: all, or, blind, those with their space when there are any."""
    found = spaced = np.int64(0)
    position = start
    while position < end:
        hit, form = np.int64(hits.first[position]), position
        position += np.int64(1) if hit >= 0 else -hit
        while hit >= 0:
            if hits.hits[hit, HIT_END] <= end:
                found += 1
                spaced += has_space(text, form, hits.hits[hit, HIT_END])
            hit = np.int64(hits.hits[hit, HIT_FOLLOWING])
    return spaced if blind and spaced else found


@compiled
def pick_hit(text: NDArray[np.uint8], hits: Hits, start: np.int64, end: int, blind: bool, number: int) -> np.int64:
    """The hit that comes as `number` among those that `count_hits` counted."""
    for with_space in (blind, False):
        left, position = number, start
        while position < end:
            hit, form = np.int64(hits.first[position]), position
            position += np.int64(1) if hit >= 0 else -hit
            while hit >= 0:
                if hits.hits[hit, HIT_END] <= end and (not with_space or has_space(text, form, hits.hits[hit, HIT_END])):
                    if left == 0:
                        return hit
                    left -= 1
                hit = np.int64(hits.hits[hit, HIT_FOLLOWING])
    return np.int64(NO_HIT)


@compiled
def same_tokens(tokens: NDArray[np.int32], window: NDArray[np.int32], size: int, ids: NDArray[np.int32], count: int) -> bool:
    """Whether the slots `window[:size]` hold just `ids[:count]`."""
    if size != count:
        return False
    for number in range(size):  # noqa: SIM110  compiled code has no all()
        if tokens[window[number], TOKEN] != ids[number]:
            return False
    return True


@compiled
def encode_reduplicated(document: Document, start: int, end: int, blind: bool, encoder: Encoder, work: Work, count: int) -> np.int64:
    """Encode a piece, its first reduplication cut out, into `work.ids` from `count` on; returns the end of them or FAILED."""
    text, pairs, length = document.text, document.hits.pairs, np.int64(0)
    first = start + pairs[start]
    while first < end and length == 0:
        length = pair_at(text, first, end, blind)
        if length == 0:  # the second of the pair lies beyond the piece
            first += 1 + (pairs[first + 1] if first + 1 < end else 0)
    last = first + length
    if length:
        work.counts[REDUPLICATIONS] += 1
        first -= 1 if not blind and first > start and text[first - 1] == BLANK else 0  # the space goes with its word
        if first > start:
            count = encode_piece(encoder, text, start, first, work.ids, count)
        if count != FAILED:
            count = encode_piece(encoder, text, first, last, work.ids, count)
        start = last
    return encode_piece(encoder, text, start, end, work.ids, count) if count != FAILED and start < end else np.int64(count)


@compiled
def expand(document: Document, law: Law, table: SplitTable, work: Work) -> None:
    """Attempt floor(expand_prop x tokens) splits as StochasTok does, at tokens that are no affixes."""
    tokens, ends = document.tokens, document.ends
    attempts = np.int64(np.floor(law.expand_prop * ends[USED]))
    work.counts[ATTEMPTS] += attempts
    for _ in range(attempts):
        slot, tries = below(work.state, ends[USED]), 1
        while tokens[slot, FLAGS] & AFFIX and tries < TRIES:
            slot, tries = below(work.state, ends[USED]), tries + 1
        first = table.offsets[tokens[slot, TOKEN]]
        choices = table.offsets[tokens[slot, TOKEN] + 1] - first
        if tokens[slot, FLAGS] & AFFIX:
            work.counts[NO_SPLIT] += 1
        elif choices:
            chosen = first + below(work.state, choices)
            split(document, slot, table.left[chosen], table.right[chosen])
            work.counts[SPLITS] += 1
        else:
            work.counts[UNSPLITTABLE] += 1
