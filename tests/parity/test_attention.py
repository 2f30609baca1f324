"""Our core attention equals softmax attention written out, in results and gradients, and its memory does not grow with seq^2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from nemo_ext.common.errors import ConfigError
from tests.support.ranks import run_ranks

HEADS, HEAD_SIZE = 4, 8
BLOCK = 256  # queries of one block of a window, unless the window is longer


@dataclass(frozen=True)
class Case:
    """One way to attend; `window` as Megatron has it: keys to the left and right besides the query's own."""

    name: str
    length: int
    mask_type: str = "causal"
    window: tuple[int, int] | None = None
    groups: int = HEADS
    scale: float | None = None
    padding: str | None = None  # hidden keys: the "right" or "left" third, or "random" for each query


CASES = [
    Case("causal", 37),
    Case("a single token", 1),
    Case("grouped queries", 37, groups=2),
    Case("one key/value head", 37, groups=1),
    Case("given scale", 37, scale=0.05),
    Case("bidirectional", 37, mask_type="padding"),
    Case("bidirectional, right padding", 37, mask_type="padding", padding="right"),
    Case("causal, right padding", 37, mask_type="padding_causal", padding="right"),
    Case("causal, left padding hides whole rows", 37, mask_type="padding_causal", padding="left"),
    Case("causal with a mask honours both", 37, padding="random"),
    Case("window of the query alone", 300, window=(0, 0)),
    Case("window shorter than a block", 2 * BLOCK + 7, window=(7, 0), groups=2),
    Case("window as long as a block", 3 * BLOCK, window=(BLOCK, 0)),
    Case("window longer than a block", 2 * BLOCK + 50, window=(BLOCK + 20, 0)),
    Case("window as long as the sequence", 40, window=(39, 0)),
    Case("window longer than the sequence", 40, window=(100, 0)),
    Case("window one short of the sequence", 40, window=(38, 0)),
    Case("window on both sides", 2 * BLOCK + 7, mask_type="padding", window=(5, 9)),
    Case("window on both sides, longer than a block", 3 * BLOCK + 9, mask_type="padding", window=(30, BLOCK + 40)),
    Case("window on both sides, longer than the sequence", 40, mask_type="padding", window=(64, 64)),
    Case("window on both sides, right padding", 2 * BLOCK + 7, mask_type="padding", window=(64, 64), padding="right"),
    Case("window with a mask for each query", 2 * BLOCK + 7, window=(50, 0), padding="random"),
]


def core_attention(mask_type: str = "causal", groups: int = HEADS, scale: float | None = None, **fields: Any) -> Any:
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.transformer_config import TransformerConfig

    from nemo_ext.layers.attention import TorchCoreAttention

    settings = {"attention_dropout": 0.0, **fields}
    config = TransformerConfig(num_layers=2, hidden_size=HEADS * HEAD_SIZE, num_attention_heads=HEADS, num_query_groups=groups, **settings)
    return TorchCoreAttention(config, layer_number=1, attn_mask_type=AttnMaskType[mask_type], attention_type="self", softmax_scale=scale)


def random_inputs(length: int, groups: int = HEADS, batch: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(length)
    return [torch.randn(length, batch, heads, HEAD_SIZE, requires_grad=True) for heads in (HEADS, groups, groups)]


def hidden_keys(case: Case) -> torch.Tensor | None:
    if case.padding is None:
        return None
    if case.padding == "random":
        return torch.rand(2, 1, case.length, case.length, generator=torch.Generator().manual_seed(1)) < 0.3
    hidden = torch.zeros(2, 1, 1, case.length, dtype=torch.bool)
    third = case.length // 3
    hidden[1, ..., -third:] = True  # the sequences of a batch differ
    hidden[0, ..., 0] = True
    return hidden.flip(-1) if case.padding == "left" else hidden


def written_out(case: Case, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Softmax attention with all scores, in float64; rows without any key give 0."""
    query, key, value = (tensor.double().permute(1, 2, 0, 3) for tensor in (query, key, value))
    key, value = (tensor.repeat_interleave(HEADS // case.groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (case.scale or HEAD_SIZE**-0.5)
    distance = torch.arange(case.length)[:, None] - torch.arange(case.length)
    masked = (distance < 0) if "causal" in case.mask_type else torch.zeros_like(distance, dtype=torch.bool)
    if case.window is not None:
        masked = masked | (distance > case.window[0]) | (-distance > case.window[1])
    masked = masked.expand_as(scores) if hidden is None else (masked | hidden).expand_as(scores)
    weights = torch.softmax(scores.masked_fill(masked, -1e30), dim=-1).masked_fill(masked, 0.0)
    return (weights @ value).permute(2, 0, 1, 3).flatten(2)


def errors_of(cases: list[Case]) -> dict[str, list[float]]:
    """Largest difference of the output and of each input's gradient, by case."""
    errors = {}
    for case in cases:
        inputs, hidden = random_inputs(case.length, case.groups), hidden_keys(case)
        wanted = written_out(case, *inputs, hidden)
        direction = torch.randn_like(wanted)
        wanted_gradients = torch.autograd.grad((wanted * direction).sum(), inputs)
        got = core_attention(case.mask_type, case.groups, case.scale, window_size=case.window)(*inputs, hidden)
        assert got.dtype == torch.float32 and got.shape == wanted.shape
        gradients = torch.autograd.grad((got * direction).sum(), inputs)
        pairs = [(got, wanted), *zip(gradients, wanted_gradients, strict=True)]
        errors[case.name] = [(one - other).abs().max().item() for one, other in pairs]
    return errors


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return run_ranks(1, errors_of, CASES)[0]


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_equals_attention_written_out(errors: dict[str, list[float]], name: str):
    assert max(errors[name]) < 1e-5, errors[name]


def difference_to_megatron() -> list[float]:
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType

    from tests.support.tiny_models import start_megatron

    start_megatron()
    differences = []
    for window in (None, (7, 0)):
        for layer, skip in ((1, None), (2, [1, 0])):  # the second layer has no window
            ours = core_attention(groups=2, window_size=window, window_attn_skip_freq=skip)
            arguments = {"layer_number": layer, "attn_mask_type": AttnMaskType.causal, "attention_type": "self"}
            inputs = random_inputs(40, groups=2)
            both = [kind(ours.config, **arguments)(*inputs, None) for kind in (type(ours), DotProductAttention)]
            differences.append((both[0] - both[1]).abs().max().item())
    return differences


def test_takes_the_place_of_megatrons_attention_also_with_windows_in_some_layers():
    assert max(run_ranks(1, difference_to_megatron)[0]) < 1e-5


def largest_tensor(case: Case) -> tuple[int, set[str]]:
    """Elements of the largest tensor that forward and backward make, and the attention kernels called."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Recorder(TorchDispatchMode):
        largest, kernels = 0, set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            output = function(*args, **(kwargs or {}))
            sizes = [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
            self.largest = max(self.largest, *sizes, 0)
            if "attention" in function.name():
                self.kernels.add(function.name())
            return output

    attention = core_attention(case.mask_type, case.groups, window_size=case.window)
    inputs, recorder = random_inputs(case.length, case.groups), Recorder()
    with recorder:
        attention(*inputs, None).sum().backward()
    return recorder.largest, recorder.kernels


@pytest.mark.parametrize(
    "case",
    [
        Case("causal", 4096, groups=2),
        Case("window", 4096, window=(511, 0), groups=2),
        Case("short window", 4096, window=(31, 0)),
        Case("window on both sides", 4096, mask_type="padding", window=(64, 64)),
    ],
    ids=lambda case: case.name,
)
def test_no_tensor_grows_with_the_square_of_the_sequence(case: Case):
    largest, kernels = run_ranks(1, largest_tensor, case)[0]
    linear = 2 * case.length * HEADS * HEAD_SIZE  # query, key, value and context of the batch of two
    mask = 2 * BLOCK * 3 * BLOCK + 512 * 1024
    assert largest <= max(linear, mask) < case.length**2 / 10
    assert all("flash_attention" in kernel for kernel in kernels) and kernels  # the math kernel would hold all scores inside


def outputs_with_dropout(seed: int) -> dict[str, torch.Tensor]:
    from megatron.core import tensor_parallel

    from tests.support.tiny_models import start_megatron

    start_megatron(tp=2, seed=seed)
    attention, inputs = core_attention(attention_dropout=0.5), [tensor.detach() for tensor in random_inputs(32)]
    first, second = attention(*inputs, None), attention(*inputs, None)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    host_state = torch.get_rng_state()
    again = attention(*inputs, None)
    kept = torch.equal(host_state, torch.get_rng_state())
    return {"first": first, "second": second, "again": again, "eval": attention.eval()(*inputs, None), "kept": torch.tensor(kept)}


def test_dropout_repeats_with_its_seed_and_differs_between_tensor_parallel_ranks():
    rank0, rank1 = run_ranks(2, outputs_with_dropout, 5)
    assert torch.equal(rank0["first"], rank0["again"])
    assert not torch.equal(rank0["first"], rank0["second"])
    assert not torch.equal(rank0["first"], rank1["first"])  # equal inputs, so only the dropped weights can differ
    assert torch.equal(rank0["eval"], rank1["eval"]) and not torch.equal(rank0["first"], rank0["eval"])
    assert rank0["kept"]  # the drawing left the state that data loaders use alone


def refusals() -> list[str]:
    from types import SimpleNamespace

    query, key, value = random_inputs(4)
    tries = [
        lambda: core_attention(context_parallel_size=2),
        lambda: core_attention(softmax_type="off-by-one"),
        lambda: core_attention()(query, key, value, None, packed_seq_params=SimpleNamespace()),
        lambda: core_attention()(query[:1], key, value, None),
    ]
    messages = []
    for attempt in tries:
        with pytest.raises(ConfigError) as caught:
            attempt()
        messages.append(str(caught.value))
    return messages


def test_what_it_cannot_do_is_refused_with_the_remedy():
    context_parallel, softmax, packed, cache = run_ranks(1, refusals)[0]
    assert "parallel.cp=2" in context_parallel and "layer_spec=te" in context_parallel
    assert "off-by-one" in softmax
    assert "packed" in packed and "from 1 queries to 4 keys" in cache
