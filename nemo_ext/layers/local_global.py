"""Attention that is local in some layers and global in others, with a rotary base for each kind.

The window itself is `TorchCoreAttention`'s business. Megatron hands all layers one rotary embedding, so it carries both.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.utils import is_layer_window_attention


class TwoBaseRotary(RotaryEmbedding):
    """Angles `[2, seq, 1, 1, head_size]`: those of local layers, then those of global ones, whose frequencies are divided by `factor`.

    base, local_base: of global and of local layers. Source: Gemma 3 report, section 2.
    """

    def __init__(self, *, base: float, local_base: float, factor: float, **arguments: Any) -> None:
        super().__init__(rotary_base=base, **arguments)
        self.inv_freq: torch.Tensor = self.inv_freq / factor
        self.local = RotaryEmbedding(rotary_base=local_base, **arguments)

    def forward(self, max_seq_len: int, offset: int = 0, packed_seq: bool = False) -> torch.Tensor:
        position = (max_seq_len, offset, packed_seq)
        return torch.stack([self.local(*position), super().forward(*position)])


class LocalGlobalAttention(SelfAttention):
    """Megatron's self-attention, turning queries and keys by the angles of its layer's kind."""

    def forward(self, *arguments: Any, rotary_pos_emb: torch.Tensor, **options: Any) -> Any:
        config = self.config
        is_local = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, self.layer_number)
        return super().forward(*arguments, rotary_pos_emb=rotary_pos_emb[0 if is_local else 1], **options)
