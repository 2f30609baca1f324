"""Core attention of encoders: over padded batches, and over sequences laid end to end, where no work goes into padding.

Of a packed batch each sequence attends to itself, so nothing of the size of the whole pack squared is ever made: on a GPU in
one kernel that knows the boundaries, elsewhere sequence by sequence. Positions are the model's business.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from nemo_ext.layers.attention import TorchCoreAttention

KERNEL_DTYPES = (torch.bfloat16, torch.float16)
HEAD_MULTIPLE = 8  # the kernels' backward passes take heads of a multiple of so many elements

# (query, key, value, boundaries on their device, longest sequence, window or (-1, -1), scale or None) -> context
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, tuple[int, int], float | None], torch.Tensor]


def boundaries_of(cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The boundaries `[sequences + 1]` of a packed batch as `PackedCoreAttention` wants them: int32 on the host, each once.

    One copy from the device per step, so that no layer has to wait for one.
    """
    return torch.unique_consecutive(cu_seqlens.to("cpu", torch.int32))


class PackedCoreAttention(TorchCoreAttention):
    """`TorchCoreAttention` whose mask may be the boundaries of packed sequences instead.

    They stand in the mask's place because Megatron carries that, and little else, through every layer and through recomputation.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *arguments: Any,
        **options: Any,
    ) -> torch.Tensor:
        """As `TorchCoreAttention.forward`, or with attention_mask the int32 `boundaries_of` a batch of one row.

        What comes after the last boundary is padding: nobody sees it, and its output is 0.
        """
        if attention_mask is None or attention_mask.dtype == torch.bool:
            return super().forward(query, key, value, attention_mask, *arguments, **options)
        length, end = query.size(0), int(attention_mask[-1])
        assert query.size(1) == 1 and attention_mask[0] == 0 and end <= length, "packed sequences are one row, from its start on"
        with self._dropout_random_state():
            context = self._attend_packed(query[:end, 0], key[:end, 0], value[:end, 0], attention_mask)
        return functional.pad(context.flatten(1), (0, 0, 0, length - end))[:, None]

    def _attend_packed(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: torch.Tensor) -> torch.Tensor:
        """All `[tokens, heads, head_size]`."""
        lengths = boundaries.diff().tolist()
        if not lengths:
            return query
        drops = self.training and self.dropout > 0  # the kernels either have no dropout or draw from other random states
        kernel = packed_kernel() if query.is_cuda and query.dtype in KERNEL_DTYPES and not drops else None
        if kernel is not None and query.size(-1) % HEAD_MULTIPLE == 0:
            on_device = boundaries.to(query.device, non_blocking=True)
            return kernel(query, key, value, on_device, max(lengths), self.window or (-1, -1), self.softmax_scale)
        parts = [tensor.transpose(0, 1)[None].split(lengths, dim=2) for tensor in (query, key, value)]  # [1, heads, length, size]
        contexts = [self._attend(part, keys, values, None, causal=False) for part, keys, values in zip(*parts, strict=True)]
        return torch.cat(contexts, dim=2)[0].transpose(0, 1)


@functools.cache
def packed_kernel() -> Kernel | None:
    """FlashAttention over packed sequences, from flash-attn, which NVIDIA's containers have, or from torch 2.13; None without both.

    Not tested on GPUs: that a resumed run is bit-identical with either. torch's goes by `torch.use_deterministic_algorithms` alone.
    """
    if importlib.util.find_spec("flash_attn") is not None:
        return _flash_attention
    if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
        from torch.nn.attention.varlen import varlen_attn

        if "window_size" in inspect.signature(varlen_attn).parameters:  # torch 2.10 has the function without windows
            return _torch_attention
    return None


def _flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    window: tuple[int, int],
    scale: float | None,
) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_func

    # Its backward pass adds up in the order in which blocks happen to end, unless told otherwise; releases before 2.4.1 cannot be told.
    order = {"deterministic": True} if "deterministic" in inspect.signature(flash_attn_varlen_func).parameters else {}
    options = {"softmax_scale": scale, "window_size": window, **order}
    return flash_attn_varlen_func(query, key, value, boundaries, boundaries, longest, longest, **options)


def _torch_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    window: tuple[int, int],
    scale: float | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    context = varlen_attn(query, key, value, boundaries, boundaries, longest, longest, scale=scale, window_size=window)
    assert isinstance(context, torch.Tensor)  # a pair only if asked for
    return context
