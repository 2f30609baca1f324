"""How long documents are cut into windows that a model can take, and how windows are put into batches.

Only index arithmetic in NumPy: what the numbers in the arrays mean to a model is the business of `evaluation.models`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nemo_ext.common.errors import ConfigError

IntArray = npt.NDArray[np.int64]


def rolling_windows(tokens: int, context: int, stride: int) -> IntArray:
    """Windows `[windows, 3]` of (start, end, scored) over a document of `tokens` tokens; each token is scored exactly once.

    With the prefix token put in front of the document (`full`, of length tokens + 1), a window feeds `full[start:end]`, at
    most `context` tokens, and scores the last `scored` of its next tokens `full[start + 1:end + 1]`. The first window scores
    all of its tokens; every later one scores `stride` new tokens (the last one what is left) and fills the rest of the
    context with tokens that were already scored.

    This is `get_rolling_token_windows` of lm-evaluation-harness (lm_eval/utils.py) with
    `context_len = context - stride + 1`; its `loglikelihood_rolling` uses `context_len=1`, which is `stride = context`.

    Raises ConfigError unless 1 <= stride <= context.
    """
    if not 1 <= stride <= context:
        raise ConfigError(
            f"The stride of the rolling windows is {stride} tokens, but it must lie between 1 and the context of {context} tokens. "
            "Choose another --stride or --context."
        )
    first_end = min(context, tokens)
    ends = np.append(np.arange(first_end, tokens, stride, dtype=np.int64), tokens) if tokens else np.empty(0, np.int64)
    scored = np.diff(ends, prepend=0)
    return np.stack([np.maximum(ends - context, 0), ends, scored], axis=1)


def plan_batches(lengths: IntArray, max_rows: int, max_positions: int) -> Iterator[IntArray]:
    """Indices of the windows of each batch, longest first, so that padding is small and too large a batch fails at once.

    A batch holds at most `max_rows` windows and, padded to its longest window, `max_positions` positions; a window that is
    longer than that is a batch by itself.
    """
    order = np.argsort(-lengths, kind="stable")
    position = 0
    while position < len(order):
        longest = max(int(lengths[order[position]]), 1)
        rows = max(1, min(max_rows, max_positions // longest))
        yield order[position : position + rows]
        position += rows
