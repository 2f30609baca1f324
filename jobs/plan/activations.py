"""Bytes that one micro batch's forward pass keeps for the backward pass, tensor by tensor, as the local layers keep them.

What each layer saves is read from nemo_ext/layers (elementwise, norm, activation, attention) and Megatron's tensor parallel
layers (0.15.3), and compared with what autograd really saves in tests/parity/test_plan_memory.py. A tensor that is a view keeps the
whole it is a view of, which is why the fused query/key/value is counted whole where only the value is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.plan.architecture import Widths
from jobs.plan.layout import Layout

FP32 = 4
# Queries per block of a window, and keys that a block takes together: nemo_ext/layers/attention.py
SMALLEST_BLOCK, SMALLEST_PIECE = 256, 64


@dataclass(frozen=True)
class Activations:
    """Bytes on one rank. `layers`: kept by each layer of the model, `first` and `last`: besides, on the first and last stage.

    loss: kept by the loss, the softmax in fp32; loss_gradient: on top of it, while the loss is differentiated.
    recomputed: what the backward pass makes anew of each layer, one at a time.
    gradients: of the widest activation, while its layer is differentiated.
    """

    layers: tuple[int, ...]
    first: int
    last: int
    loss: int
    loss_gradient: int
    recomputed: tuple[int, ...]
    gradients: int


def activations(widths: Widths, layout: Layout, hidden_dropout: float, dropout_mask_bytes: int = 1) -> Activations:
    """What one micro batch keeps. `dropout_mask_bytes`: per element of a dropout's mask, 1 on a GPU."""
    mask = dropout_mask_bytes if hidden_dropout else 0
    layers = range(len(widths.windows))
    whole = [_layer(widths, layout, layer, False, mask) for layer in layers]
    checkpointed = [_layer(widths, layout, layer, True, mask) for layer in layers]
    hidden = layout.split_tokens * widths.hidden * layout.dtype_bytes
    kept = {"none": whole, "selective": checkpointed, "full": [hidden] * len(whole)}[layout.recompute]
    # what a layer keeps anyway is not made anew: with full recomputation its input, unless its norm keeps an fp32 copy instead
    shared = kept if layout.recompute != "full" or not _copied_by_norms(widths, layout) else [0] * len(whole)
    predicted = round(layout.tokens * layout.predicted)
    softmax = predicted * widths.vocabulary // layout.tp * FP32
    return Activations(
        layers=tuple(kept),
        first=_embedding(widths, layout, mask),
        last=_head(widths, layout, predicted) if widths.is_encoder else _norm(widths, layout, layout.split_tokens) + hidden,
        loss=softmax + predicted * (8 + 1),
        loss_gradient=0 if layout.dtype_bytes == FP32 else softmax // FP32 * layout.dtype_bytes,
        recomputed=tuple(all_ - some for all_, some in zip(whole, shared, strict=True)),
        gradients=(4 if widths.gated else 2) * layout.tokens * widths.ffn // layout.tp * layout.dtype_bytes,
    )


def _embedding(widths: Widths, layout: Layout, mask: int) -> int:
    """Token ids, positions, an encoder's norm, dropout, and the angles that layers computed again are given."""
    ids = layout.tokens * 8 * (1 if widths.rotary else 2)
    norm = _norm(widths, layout, layout.split_tokens) if widths.is_encoder else 0
    angles = _angle_rows(widths, layout) * widths.head_size * FP32 * widths.rotary_bases if layout.recompute == "full" else 0
    return ids + norm + mask * layout.split_tokens * widths.hidden + angles


def _head(widths: Widths, layout: Layout, predicted: int) -> int:
    """An encoder's final norm and, for the predicted tokens alone, what its head's layers and the output layer are given."""
    final = _norm(widths, layout, layout.split_tokens) if widths.final_norm else 0
    return final + _norm(widths, layout, predicted) + 3 * predicted * widths.hidden * layout.dtype_bytes


def _angle_rows(widths: Widths, layout: Layout) -> int:
    """Positions that have rotary angles of their own: those of a sequence, or of every token of an encoder's batch."""
    return layout.tokens if widths.is_encoder else layout.seq_length


def _layer(widths: Widths, layout: Layout, layer: int, checkpointed_core: bool, mask: int) -> int:
    """Bytes that one layer keeps without full recomputation."""
    split, bytes_each = layout.split_tokens, layout.dtype_bytes
    norms = widths.layer_norms - (layer == 0 and not widths.first_norm)
    return (
        norms * _norm(widths, layout, split)
        + 2 * split * widths.hidden * bytes_each  # what the two linear layers are given
        + _attention(widths, layout, widths.windows[layer], checkpointed_core)
        + (4 if widths.gated else 2) * layout.tokens * widths.ffn // layout.tp * bytes_each
        + 2 * mask * split * widths.hidden
    )


def _copied_by_norms(widths: Widths, layout: Layout) -> bool:
    """Whether norms keep an fp32 copy of their input instead of the input."""
    return widths.zero_centered and layout.dtype_bytes != FP32


def _norm(widths: Widths, layout: Layout, rows: int) -> int:
    """Input and statistics of a norm over rows of hidden states; a zero-centred one computes on an fp32 copy."""
    width = widths.hidden
    if not widths.rms_norm:
        return rows * (width * layout.dtype_bytes + 2 * FP32)
    if widths.zero_centered:
        return rows * (width + 1) * FP32 + width * FP32
    return rows * (width * layout.dtype_bytes + FP32)


def _attention(widths: Widths, layout: Layout, window: int | None, checkpointed: bool) -> int:
    """From the fused query/key/value to the context, whose storage is also the output projection's input."""
    tokens, each = layout.tokens, layout.dtype_bytes
    groups = max(1, widths.groups // layout.tp)
    query, key = tokens * widths.query // layout.tp * each, tokens * groups * widths.head_size * each
    statistics = tokens * widths.heads // layout.tp * FP32
    is_local = window is not None and window < layout.seq_length // layout.cp - 1
    copied_by_norms = widths.head_norms and _copied_by_norms(widths, layout)
    holds_fused = checkpointed or not is_local or (widths.head_norms and not copied_by_norms)
    kept = (query + 2 * key) * holds_fused + 2 * query if widths.rotary else query + 2 * key + query  # with the context
    kept += _head_norms(widths, layout, query, key, copied_by_norms) if widths.head_norms else 0
    kept += 4 * _angle_rows(widths, layout) * widths.head_size // 2 * each if widths.rotary else 0  # sine and cosine, for query and key
    if widths.groups < layout.tp:  # its weight is put together from the queries' and from one head of the keys' and values'
        kept += (widths.query // layout.tp + 2 * widths.head_size) * widths.hidden * each
    if checkpointed:
        return kept + key * widths.rotary
    kept += statistics + query * (is_local or layout.packed)  # the context once more where it is put together from parts
    return kept + (_bands(widths, layout, window or 0, 2 * key) if is_local else key * widths.rotary)


def _head_norms(widths: Widths, layout: Layout, query: int, key: int, copied: bool) -> int:
    """Norms on the heads of query and key: statistics, and the query's own copy, or fp32 copies of both."""
    heads, groups = widths.heads // layout.tp, key // (layout.tokens * widths.head_size * layout.dtype_bytes)
    kept = layout.tokens * (heads + groups) * FP32
    if copied:
        return kept + (query + key) * FP32 // layout.dtype_bytes
    return kept + (query if groups > 1 and heads > groups else 0)


def _bands(widths: Widths, layout: Layout, window: int, key_value: int) -> int:
    """Keys and values of a window's blocks of queries, each with a piece before it and an encoder's with one after it, and their masks."""
    length = layout.seq_length // layout.cp
    piece = max(window, SMALLEST_PIECE)
    block = -(-SMALLEST_BLOCK // piece) * piece
    before, after = (piece if window else 0), (piece if window and widths.is_encoder else 0)
    blocks = [(min(block, length - start), max(0, start - before), min(start + block + after, length)) for start in range(0, length, block)]
    keys, masks = sum(stop - first for _, first, stop in blocks), sum(queries * (stop - first) for queries, first, stop in blocks)
    return key_value * keys // length + masks * layout.dtype_bytes
