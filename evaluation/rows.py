"""Rows of token ids through a causal model, and the log-probabilities of chosen tokens in them: batches, sums, checks.

Texts and what the sums mean are the business of `evaluation.models`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from evaluation.forward import Advance, Network, Scores, padded
from evaluation.windows import IntArray, plan_batches
from nemo_ext.common.errors import DataError


@dataclass(frozen=True)
class Row:
    """One row of a forward pass, and what is scored in it: (owner, column of the first prediction, targets)."""

    inputs: IntArray
    spans: tuple[tuple[int, int, IntArray], ...]


class RowScorer:
    """Scores rows with a network, at most `max_rows` in a batch."""

    def __init__(self, network: Network, max_rows: int) -> None:
        self._network, self._max_rows = network, max_rows

    def score(
        self,
        lengths: IntArray,
        row: Callable[[int], Row],
        names: Sequence[str],
        token_bytes: npt.NDArray[np.float64],
        advance: Advance,
        ranked: bool = False,
    ) -> Scores:
        """Log-likelihood and worst rank of each owner, which has `names[owner]` and `token_bytes[owner]` bytes of text per token.

        `row(number)` gives the row that has `lengths[number]` tokens.
        """
        totals, worst = np.zeros(len(names)), np.ones(len(names), dtype=np.int64)
        for batch in plan_batches(lengths, self._max_rows, self._network.max_positions):
            rows = [row(number) for number in batch.tolist()]
            spans = [span for one in rows for span in one.spans]
            owners = np.repeat([owner for owner, _, _ in spans], [len(targets) for *_, targets in spans])
            self._check_ids(rows, names)
            scores, ranks = self._score_batch(rows, ranked)
            np.add.at(totals, owners, scores)
            np.maximum.at(worst, owners, ranks)
            for owner in owners[~np.isfinite(scores)][:1]:
                raise DataError(
                    f"The model gives {names[owner]} the log-likelihood {totals[owner]}, but a score must be finite. "
                    "The weights may hold NaN or infinity: check the training run that wrote them."
                )
            advance(float(token_bytes[owners].sum()))
        return totals, worst

    def _check_ids(self, rows: Sequence[Row], names: Sequence[str]) -> None:
        for row in rows:
            highest = max(row.inputs.max(), *(targets.max() for *_, targets in row.spans))
            if highest >= self._network.vocab_size:
                raise DataError(
                    f"The tokenizer gives token id {highest} in {names[row.spans[0][0]]}, but the model has a vocabulary of "
                    f"{self._network.vocab_size}. The tokenizer in this folder does not belong to the model."
                )

    @torch.inference_mode()
    def _score_batch(self, rows: Sequence[Row], ranked: bool) -> Scores:
        """Log-probability and rank of every target of the rows, in order."""
        inputs, mask = padded([row.inputs for row in rows])
        spans = [(number, first, targets) for number, row in enumerate(rows) for _, first, targets in row.spans]
        counts = [len(targets) for *_, targets in spans]
        places = np.repeat([number for number, _, _ in spans], counts)
        columns = np.concatenate([np.arange(first, first + count) for (_, first, _), count in zip(spans, counts, strict=True)])
        longest = inputs.shape[1]
        logits = self._network.forward(inputs, mask, logits_to_keep=longest - int(columns.min())).logits
        # Counted from the end, columns are right whether or not the architecture spares the logits that nobody asked for.
        targets = np.concatenate([targets for *_, targets in spans])
        return self._network.gather(logits, places, columns - longest, targets, ranked=ranked)


def common_tokens(first: IntArray, second: IntArray) -> int:
    """How many tokens both begin with."""
    length = min(len(first), len(second))
    unlike = first[:length] != second[:length]
    return int(unlike.argmax()) if unlike.any() else length


def shared_rows(sequences: Sequence[IntArray], scored: Sequence[int], first_owner: int) -> list[Row]:
    """Rows that hold all sequences: one that another begins with needs none of its own, because a causal model sees no later token."""
    rows: list[tuple[IntArray, list[tuple[int, int, IntArray]]]] = []
    for number in sorted(range(len(sequences)), key=lambda one: -len(sequences[one])):
        inputs, start = sequences[number][:-1], len(sequences[number]) - scored[number]
        span = (first_owner + number, start - 1, sequences[number][start:])
        for known, spans in rows:
            if np.array_equal(known[: len(inputs)], inputs):
                spans.append(span)
                break
        else:
            rows.append((inputs, [span]))
    return [Row(inputs, tuple(spans)) for inputs, spans in rows]
