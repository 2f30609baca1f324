"""Rotary embedding, RMSNorm and gated activations with backward passes of their own.

What autograd derives for these reads and writes each activation a dozen times; on a CPU, where memory is what such
operations wait for, that is a sixth of a training step. Here each pass over memory is one that the formula needs. In
bf16 RmsNorm rounds where transformers does; all else differs from the formulas written out by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


class RmsNorm(torch.autograd.Function):
    """`x / rms(x) * weight` over the last dimension, normalised in fp32 and rounded to x's dtype before it is scaled.

    x `[..., hidden]`, weight `[hidden]` (already what x is multiplied by). Source: Zhang and Sennrich 2019, equation 4.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        x32 = x.float()
        inverse = torch.rsqrt(torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x.size(-1)).add_(eps))
        ctx.save_for_backward(x, weight, inverse)
        return (x32 * inverse).type_as(x) * weight

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        size = x.size(-1)
        grad32, x32 = grad.float().reshape(-1, size), x.float().reshape(-1, size)
        inverse, weight32 = inverse.reshape(-1), weight.float()
        product = grad32 * x32
        grad_weight = inverse @ product
        along = (product @ weight32) * inverse.pow(3) / -size
        grad_x = (grad32 * weight32).mul_(inverse[:, None]).addcmul_(x32, along[:, None])
        return grad_x.view_as(x).type_as(x), grad_weight.type_as(weight), None


class Rotary(torch.autograd.Function):
    """Rotary position embedding in halves: `[x1 cos - x2 sin, x2 cos + x1 sin]`. Source: Su et al. 2021, equation 34.

    x `[seq, ..., size]`; cos and sin `[seq, ..., size / 2]`, broadcastable. Linear, so backward is the turn the other way.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1), None, None


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, direction: int) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    turned_first, turned_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=turned_first).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=turned_second).addcmul_(first, sin, value=direction)
    return turned


class GatedActivation(torch.autograd.Function):
    """`activation(gate) * up` for x = [gate; up] `[..., 2 * ffn]`. Source: Shazeer 2020, section 2.

    `backward_of(grad, gate, out)` writes the activation's gradient into `out`.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, activation: Callable[..., Any], backward_of: Callable[..., Any]) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        activated = activation(gate)
        ctx.save_for_backward(x, activated)
        ctx.backward_of = backward_of
        return activated * up

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, activated = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        grad_x = torch.empty_like(x)
        grad_gate, grad_up = grad_x.chunk(2, dim=-1)
        torch.mul(grad, activated, out=grad_up)
        ctx.backward_of(grad * up, gate, grad_gate)
        return grad_x, None, None


def silu_backward(grad: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
    """Gradient of SiLU, into `out`."""
    aten.silu_backward.grad_input(grad, gate, grad_input=out)


def tanh_gelu_backward(grad: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
    """Gradient of GELU's tanh approximation, into `out`."""
    aten.gelu_backward.grad_input(grad, gate, approximate="tanh", grad_input=out)


def gelu_backward(grad: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
    """Gradient of GELU itself, by the error function, into `out`."""
    aten.gelu_backward.grad_input(grad, gate, approximate="none", grad_input=out)
