"""Operations with a backward pass of their own, against autograd on the formula as transformers writes it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.backend import repairs
from nemo_ext.layers.activation import BACKWARD
from nemo_ext.layers.elementwise import GatedActivation, RmsNorm, Rotary

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9))


def formula_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """transformers' Qwen2RMSNorm."""
    x32 = x.float()
    return weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def formula_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """transformers' apply_rotary_pos_emb; cos and sin of half the size."""
    first, second = x.chunk(2, dim=-1)
    return x * torch.cat((cos, cos), dim=-1) + torch.cat((-second, first), dim=-1) * torch.cat((sin, sin), dim=-1)


def formula_gated(x: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return activation(gate) * up


def outcome(operation: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What `operation` gives, and the gradients of its inputs for one fixed outgoing gradient."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    result = operation(*leaves)
    result.backward(torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape))
    return [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_same(ours: list[torch.Tensor], formula: list[torch.Tensor], tolerance: float) -> None:
    assert len(ours) == len(formula)
    for own, other in zip(ours, formula, strict=True):
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other, atol=tolerance, rtol=tolerance)


@given(SHAPES, st.integers(0, 2**31))
def test_rms_norm_and_its_gradients_are_those_of_the_formula(shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(shape), torch.randn(shape[-1])
    ours = outcome(lambda x, weight: RmsNorm.apply(x, weight, 1e-6), x, weight)
    assert_same(ours, outcome(lambda x, weight: formula_norm(x, weight, 1e-6), x, weight), 2e-5)


def test_rms_norm_rounds_bfloat16_where_the_formula_does() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(7, 2, 64).bfloat16(), torch.randn(64).bfloat16()
    torch.testing.assert_close(RmsNorm.apply(x, weight, 1e-6), formula_norm(x, weight, 1e-6), atol=0, rtol=2**-7)
    ours = outcome(lambda x, weight: RmsNorm.apply(x, weight, 1e-6), x, weight)
    assert [part.dtype for part in ours] == [torch.bfloat16] * 3


@given(SHAPES, st.integers(0, 2**31), st.sampled_from(list(BACKWARD)))
def test_gated_activation_and_its_gradient_are_those_of_the_formula(
    shape: tuple[int, ...], seed: int, activation: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(*shape[:-1], 2 * shape[-1])
    ours = outcome(lambda x: GatedActivation.apply(x, activation, BACKWARD[activation]), x)
    assert_same(ours, outcome(lambda x: formula_gated(x, activation), x), 1e-6)


@given(SHAPES, st.integers(0, 2**31))
def test_rotary_embedding_and_its_gradient_are_those_of_the_formula(shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    x, angles = torch.randn(*shape[:-1], 2 * shape[-1]), torch.randn(shape[0], 1, 1, shape[-1])
    cos, sin = angles.cos(), angles.sin()
    assert_same(outcome(lambda x: Rotary.apply(x, cos, sin), x), outcome(lambda x: formula_rotary(x, cos, sin), x), 2e-6)


@pytest.mark.parametrize("rotary_size", [8, 4], ids=["whole head", "half of the head"])
def test_the_rotary_embedding_in_megatrons_place_gives_what_megatrons_own_gives(rotary_size: int) -> None:
    from megatron.core.models.common.embeddings import rope_utils

    angles = torch.randn(5, 1, 1, rotary_size // 2)
    frequencies, queries = torch.cat((angles, angles), dim=-1), torch.randn(5, 2, 3, 8)
    upstream = rope_utils._apply_rotary_pos_emb_bshd
    own = upstream if hasattr(upstream, "__wrapped__") else _repaired(upstream)
    assert_same(outcome(lambda t: own(t, frequencies), queries), outcome(lambda t: own.__wrapped__(t, frequencies), queries), 1e-6)


def _repaired(upstream: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    module = SimpleNamespace(_apply_rotary_pos_emb_bshd=upstream)
    repairs._lean_rotary_embedding(module)  # type: ignore[arg-type]
    return module._apply_rotary_pos_emb_bshd


def test_weight_gradients_are_added_to_their_buffer() -> None:
    module = SimpleNamespace()
    repairs._weight_gradients_in_place(module)  # type: ignore[arg-type]
    inputs, grad_output, buffer = torch.randn(6, 3), torch.randn(6, 4), torch.randn(4, 3)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 5e-2)):
        total = buffer.clone()
        module.fused_weight_gradient_mlp_cuda.wgrad_gemm_accum_fp32(inputs.to(dtype), grad_output.to(dtype), total)
        torch.testing.assert_close(total, buffer + grad_output.T @ inputs, atol=tolerance, rtol=tolerance)


class Group:
    """A process group, of which only the size is asked."""

    def __init__(self, size: int) -> None:
        self.count = size

    def size(self) -> int:
        return self.count


def test_buffers_are_exchanged_with_others_and_not_with_oneself() -> None:
    calls: list[int] = []

    def collective(output: torch.Tensor, input: torch.Tensor, group: Group) -> None:
        calls.append(group.size())

    module = SimpleNamespace(dist_all_gather_func=collective, dist_reduce_scatter_func=collective)
    repairs._no_exchange_with_oneself(module)  # type: ignore[arg-type]
    buffer = torch.zeros(4)
    for exchange in (module.dist_all_gather_func, module.dist_reduce_scatter_func):
        exchange(buffer, buffer.view(4), group=Group(1))
        assert calls == []
        exchange(buffer, buffer.clone(), group=Group(1))  # nothing would arrive in `output` if this were left out
        exchange(buffer, buffer, group=Group(2))
        assert calls == [1, 2]
        calls.clear()
