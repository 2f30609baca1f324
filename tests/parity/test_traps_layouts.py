"""Recomputation in every decoder family, and what cannot be split over context parallel ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nemo_ext.common.errors import ConfigError
from tests.support.ranks import run_ranks
from tests.support.tiny_models import GEMMA3, GPT2, LLAMA, QWEN2, QWEN3, build_model, start_megatron, token_batch

FAMILIES = {
    "gemma3": GEMMA3,
    "gemma3, one key/value head": {**GEMMA3, "num_key_value_heads": 1},
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": {**QWEN2, "num_hidden_layers": 3},
    "qwen3": QWEN3,
}


PASSES = {"none": (1, 1), "selective": (2, 1), "full": (2, 2)}  # of the first layer's core attention and of its MLP, in one step


def loss_and_gradients(hf_config: dict[str, Any], recompute: str, weights: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """With dropout, from the same weights and random states; `weights` is filled by the first call."""
    from megatron.core import tensor_parallel

    from nemo_ext.engine.build import RECOMPUTE

    tensor_parallel.model_parallel_cuda_manual_seed(3)
    model = build_model(hf_config, 2, sequence_parallel=True, attention_dropout=0.2, hidden_dropout=0.1, **RECOMPUTE[recompute])
    weights.update({} if weights else {key: value for key, value in model.state_dict().items() if value is not None})
    model.load_state_dict(weights, strict=False)
    layer, passes = model.decoder.layers[0], [0, 0]
    for index, module in enumerate((layer.self_attention.core_attention, layer.mlp)):
        module.register_forward_hook(lambda *_, index=index: passes.__setitem__(index, passes[index] + 1))
    tensor_parallel.model_parallel_cuda_manual_seed(4)
    torch.manual_seed(4)
    tokens = token_batch(hf_config, length=49)
    loss = model(tokens[:, :-1], torch.arange(48).expand(len(tokens), -1), None, labels=tokens[:, 1:]).mean()
    loss.backward()
    assert tuple(passes) == PASSES[recompute], passes
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def recomputed() -> dict[str, dict[str, float]]:
    """By family and way to recompute: how far loss and gradients are from those without."""
    start_megatron(tp=2)
    differences = {}
    for name, config in FAMILIES.items():
        weights: dict[str, Any] = {}
        loss, gradients = loss_and_gradients(config, "none", weights)
        for recompute in ("selective", "full"):
            again, others = loss_and_gradients(config, recompute, weights)
            worst = max((one - other).abs().max().item() for one, other in zip(gradients, others, strict=True))
            differences[f"{name}, {recompute}"] = {"loss": (again - loss).abs().item(), "gradients": worst}
    return differences


def test_recomputation_changes_nothing_in_any_family():
    for differences in run_ranks(2, recomputed, timeout_s=240.0):
        assert len(differences) == 2 * len(FAMILIES)
        assert {name: found for name, found in differences.items() if found["loss"] > 0 or found["gradients"] > 1e-6} == {}


def context_parallel() -> list[str]:
    """What our layers say to a sequence split over two ranks, and what Megatron's own attention without Transformer Engine says."""
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.transformer_config import TransformerConfig

    start_megatron()
    messages = []
    for config in (GEMMA3, GPT2, QWEN3):
        with pytest.raises(ConfigError) as refused:
            build_model(config, context_parallel_size=2)
        messages.append(str(refused.value))
    settings = TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=2, context_parallel_size=2)
    with pytest.raises(AssertionError) as unsupported:
        DotProductAttention(settings, 1, AttnMaskType.causal, "self")
    return [*messages, str(unsupported.value)]


def test_context_parallelism_without_transformer_engine_is_refused_with_the_remedy():
    *ours, megatrons = run_ranks(1, context_parallel)[0]
    assert all("parallel.cp=2" in message and "Set parallel.cp=1" in message and "model.layer_spec=te" in message for message in ours)
    assert "only supported by TEDotProductAttention" in megatrons  # if Megatron learns it one day, ours should
