"""Choosing tokens to predict, and what the model sees in their place (Devlin et al. 2019, section 3.1, task 1).

Every choice is a hash of (seed, epoch, piece, position in the piece), so it depends on nothing else: not on the row that a piece
lies in, not on ranks, loader processes or where a run was resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tasks.mlm_vocabulary import MaskingVocabulary
from nemo_ext.tasks.online_stream import unit_keys

IGNORED = -100  # the label of a token that is not to be predicted, as in torch and transformers
CHOICE, KIND, REPLACEMENT = 0, 1, 2  # the independent draws of one position


@dataclass(frozen=True)
class Masking:
    """How much is masked, and how: settings of `data.masking`, with the rate of the split and the seed."""

    rate: float
    mask_share: float
    random_share: float
    whole_words: bool
    seed: int


def mask(
    ids: NDArray[np.int64],
    piece_starts: NDArray[np.int64],
    pieces: NDArray[np.int64],
    epoch: int,
    masking: Masking,
    vocabulary: MaskingVocabulary,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What the model sees and what it has to predict, both [tokens]; labels are IGNORED where nothing is to be predicted.

    `ids` [tokens] are pieces end to end, of which the one numbered `pieces[i]` begins at `piece_starts[i]`.
    """
    places = np.arange(len(ids))
    piece = np.searchsorted(piece_starts, places, side="right") - 1
    number, position = pieces[piece], places - piece_starts[piece]
    decided_at = position
    if masking.whole_words:
        begun = np.maximum.accumulate(np.where(vocabulary.word_starts(ids, piece_starts), places, 0))
        decided_at = begun - piece_starts[piece]

    def draws(purpose: int, where: NDArray[np.int64]) -> NDArray[np.uint64]:
        constant = np.full(len(where), purpose)
        return unit_keys(constant + masking.seed % 2**63, constant * 0 + epoch, number, where, constant)

    chosen = (unit(draws(CHOICE, decided_at)) < masking.rate) & vocabulary.maskable[ids]
    kind = unit(draws(KIND, position))
    shown = np.where(chosen & (kind < masking.mask_share), vocabulary.mask_id, ids)
    replaced = chosen & (kind >= masking.mask_share) & (kind < masking.mask_share + masking.random_share)
    drawn = draws(REPLACEMENT, position) >> np.uint64(32)
    index = (drawn * np.uint64(len(vocabulary.replacements))) >> np.uint64(32)
    shown = np.where(replaced, vocabulary.replacements[index.astype(np.int64)], shown)
    return shown, np.where(chosen, ids, IGNORED)


def unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) from the upper 53 of 64 random bits."""
    return (bits >> np.uint64(11)) * 2.0**-53
