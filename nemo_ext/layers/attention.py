"""Core attention on torch's scaled_dot_product_attention: no `[seq, seq]` scores, no Transformer Engine.

Takes the place of megatron.core.transformer.dot_product_attention.DotProductAttention (0.15.3) in a layer spec. Causal
attention builds no mask; a sliding window is computed in blocks of queries against their band of keys, so that memory
grows with seq x window. Projections, rotary embedding and recomputation stay Megatron's.

Left alone: context parallelism, packed sequences, learnable softmax sinks and decoding with a key/value cache, which are
refused with an error. With attention dropout on a CPU, torch itself falls back to scores of `[seq, seq]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import is_layer_window_attention
from torch.nn import functional

from nemo_ext.common.errors import ConfigError
from nemo_ext.config.checks import local_layers_refusal

CAUSAL_TYPES = (AttnMaskType.causal, AttnMaskType.padding_causal)
SMALLEST_BLOCK = 256  # queries per block of a window; smaller blocks cost more launches than they save products
SMALLEST_PIECE = 64  # keys that a block takes or leaves together


class TorchCoreAttention(MegatronModule):
    """Attention over the heads of this tensor parallel rank.

    The window comes from `config.window_size` = (keys to the left, keys to the right), each besides the query's own
    position, in the layers that `config.window_attn_skip_freq` names. `config.apply_query_key_layer_scaling` changes
    nothing: Megatron divides the scores by the layer number and multiplies them back in the softmax.
    Raises ConfigError for settings that this attention cannot honour.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        super().__init__(config=config)
        del attention_type, cp_comm_type, pg_collection  # part of Megatron's contract, without meaning here
        _refuse_unsupported(config)
        self.attn_mask_type = attn_mask_type
        self.softmax_scale = softmax_scale  # None: torch's default, 1 / sqrt(head size)
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        has_window = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        self.window: tuple[int, int] | None = tuple(config.window_size) if has_window else None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> torch.Tensor:
        """Attend.

        query `[seq, batch, heads, head_size]`, key and value `[seq, batch, groups, head_size]` with heads a multiple of
        groups; attention_mask bool, True where a key is hidden, broadcastable to `[batch, heads, seq, seq]`, applied in
        addition to causality. Returns `[seq, batch, heads * head_size]`. A query whose keys are all hidden gets 0.
        Raises ConfigError for packed sequences and for a key/value cache.
        """
        assert attention_bias is None, "Megatron passes attention_bias for Transformer Engine only"
        if packed_seq_params is not None or query.size(0) != key.size(0):
            raise ConfigError(
                f"Local layers cannot attend from {query.size(0)} queries to {key.size(0)} keys or over packed sequences. "
                "Train on unpacked sequences; to generate text, export the model to Hugging Face format."
            )
        mask_type = self.attn_mask_type if attn_mask_type is None else attn_mask_type
        visible = None if attention_mask is None else ~attention_mask
        query, key, value = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))  # [batch, heads, seq, size]
        with self._dropout_random_state():
            context = self._attend(query, key, value, visible, causal=mask_type in CAUSAL_TYPES)
        return context.permute(2, 0, 1, 3).flatten(2)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        """All in `[batch, heads, seq, head_size]`; `visible` True where a key may be seen."""
        length = query.size(2)
        left, right = self.window if self.window is not None else (length, length)
        right = 0 if causal else right
        if left < length - 1 or (right < length - 1 and not causal):
            return self._attend_in_window(query, key, value, visible, left, right)
        if visible is None:
            return self._scaled_dot_product(query, key, value, None, causal=causal)
        if causal:
            visible = visible & band(length, length, 0, length, 0, query.device)
        return self._scaled_dot_product(query, key, value, visible)

    def _attend_in_window(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None, left: int, right: int
    ) -> torch.Tensor:
        """Blocks of queries see the keys of their own places and, of those beside them, a piece of at least a window's length.

        Keys are split and joined, never sliced: the gradient of a slice would be as long as the sequence, for each block.
        """
        length = query.size(2)
        piece = max(left, right, SMALLEST_PIECE)
        pieces_per_block = -(-SMALLEST_BLOCK // piece)
        block = pieces_per_block * piece
        keys, values = key.split(piece, dim=2), value.split(piece, dim=2)
        contexts = []
        for index, block_query in enumerate(query.split(block, dim=2)):
            first = max(0, index * pieces_per_block - (left > 0))
            last = (index + 1) * pieces_per_block + (right > 0)
            start, end = first * piece, min(last * piece, length)
            shown = band(block_query.size(2), end - start, index * block - start, left, right, query.device)
            if visible is not None:
                shown = shown & _part(visible, index * block, block_query.size(2), start, end - start)
            band_keys, band_values = torch.cat(keys[first:last], dim=2), torch.cat(values[first:last], dim=2)
            contexts.append(self._scaled_dot_product(block_query, band_keys, band_values, shown))
        return torch.cat(contexts, dim=2)

    def _scaled_dot_product(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None, causal: bool = False
    ) -> torch.Tensor:
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
            scale=self.softmax_scale,
            enable_gqa=query.size(1) != key.size(1),
        )

    @contextlib.contextmanager
    def _dropout_random_state(self) -> Iterator[None]:
        """Draw from the tensor parallel ranks' own random states, so that each rank's heads drop different weights.

        Under sequence parallelism the whole transformer block runs in that state already, as with Megatron's attention.
        """
        if self.training and self.dropout and not self.config.sequence_parallel:
            with tensor_parallel.get_cuda_rng_tracker().fork():
                yield
        else:
            yield


def band(queries: int, keys: int, offset: int, left: int, right: int, device: torch.device) -> torch.Tensor:
    """Bool `[queries, keys]`, True where query i, which stands at key `i + offset`, sees from `left` keys back to `right` on."""
    distance = torch.arange(queries, device=device)[:, None] + (offset - torch.arange(keys, device=device))
    return (distance <= left) & (distance >= -right)


def _part(mask: torch.Tensor, first_query: int, queries: int, first_key: int, keys: int) -> torch.Tensor:
    """The part of a mask `[.., 1 or seq, 1 or seq]` for some queries and keys."""
    if mask.size(-2) > 1:
        mask = mask.narrow(-2, first_query, queries)
    if mask.size(-1) > 1:
        mask = mask.narrow(-1, first_key, keys)
    return mask


def _refuse_unsupported(config: TransformerConfig) -> None:
    if config.context_parallel_size > 1:
        raise ConfigError(local_layers_refusal(config.context_parallel_size))
    if config.softmax_type != "vanilla":
        raise ConfigError(f"softmax_type={config.softmax_type!r}: local layers know only 'vanilla'. Set it, or use model.layer_spec=te.")
