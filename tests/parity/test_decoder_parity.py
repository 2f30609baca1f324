"""Each decoder family in Megatron computes what transformers does: logits, loss, every gradient and the gradient norm, in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.parity import LAYOUTS, gradient_errors, loader, save_gradients, wrap
from tests.support.ranks import run_ranks
from tests.support.tiny_models import GEMMA3, GPT2, LLAMA, QWEN2, QWEN3, build_model, start_megatron, token_batch, write_random_hf_model

LENGTH, MICRO_BATCHES = 48, 2
MODELS = {
    "gemma3": GEMMA3,
    "gemma3, one key/value head, window longer than the sequence": {**GEMMA3, "num_key_value_heads": 1, "sliding_window": 100},
    "gemma3, untied, window of two, one kind of layer": {
        **GEMMA3,
        "tie_word_embeddings": False,
        "sliding_window": 2,
        "rope_scaling": None,
        "layer_types": ["sliding_attention"] * 6,
    },
    "qwen2, tied": {**QWEN2, "tie_word_embeddings": True},
    "qwen2, untied, heads wider than hidden size / heads": {**QWEN2, "head_dim": 24},
    "llama": LLAMA,
    "qwen3": QWEN3,
    "gpt2": GPT2,
}


def write_reference(folder: str, hf_config: dict[str, Any]) -> dict[str, Any]:
    """Write the model and, as a model of the same shape, its gradients; return logits, loss and gradient norm."""
    model = write_random_hf_model(Path(folder, "weights"), hf_config)
    tokens = token_batch(hf_config, length=LENGTH + 1)
    logits = model(tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    norm = save_gradients(model, Path(folder, "gradients"))
    return {"logits": logits.detach(), "loss": loss.item(), "norm": norm}


def train_once(folder: str, hf_config: dict[str, Any], tp: int, pp: int, sequence_parallel: bool) -> dict[str, Any]:
    """One training step through Megatron's own schedule, data parallel wrapper and optimizer."""
    from megatron.core import parallel_state
    from megatron.core.distributed import finalize_model_grads
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.pipeline_parallel import get_forward_backward_func

    start_megatron(tp, pp)
    fields = {"sequence_parallel": sequence_parallel, "finalize_model_grads_func": finalize_model_grads}
    model = build_model(hf_config, tp, pp, weight_loader=loader(folder, "weights", hf_config), **fields)
    wrapped = wrap(model)
    logits: list[torch.Tensor] = []
    if hasattr(model, "output_layer"):
        model.output_layer.register_forward_hook(lambda module, arguments, output: logits.append(output[0].detach().clone()))
    tokens = token_batch(hf_config, length=LENGTH + 1).chunk(MICRO_BATCHES)
    losses = get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iter(tokens),
        model=[wrapped],
        num_microbatches=MICRO_BATCHES,
        seq_length=LENGTH,
        micro_batch_size=len(tokens[0]),
        forward_only=False,
    )
    optimizer = get_megatron_optimizer(OptimizerConfig(optimizer="adam", lr=0.0, clip_grad=0.0), [wrapped])
    _, norm, _ = optimizer.step()
    expected = build_model(hf_config, tp, pp, weight_loader=loader(folder, "gradients", hf_config), **fields)
    return {
        "is_last_stage": parallel_state.is_pipeline_last_stage(),
        "logits": torch.cat(logits, dim=1).transpose(0, 1) if logits else None,
        "loss": sum(entry["loss"].item() for entry in losses) / MICRO_BATCHES if losses else None,
        "norm": norm,
        "gradient_errors": gradient_errors(model, expected),
    }


def forward_step(data: Any, model: Any) -> Any:
    tokens = next(data)
    positions = torch.arange(LENGTH).expand(len(tokens), -1)
    output = model(tokens[:, :-1], positions, None, labels=tokens[:, 1:])
    return output, lambda losses: (losses.mean(), {"loss": losses.mean().detach()})


@pytest.fixture(scope="module", params=MODELS)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return reference_of(MODELS[request.param], tmp_path_factory.mktemp("reference"))


def reference_of(hf_config: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "hf_config": hf_config, **run_ranks(1, write_reference, str(folder), hf_config)[0]}


def compare(reference: dict[str, Any], tp: int, pp: int, sequence_parallel: bool) -> None:
    results = run_ranks(tp * pp, train_once, reference["folder"], reference["hf_config"], tp, pp, sequence_parallel)
    last_stage = [result for result in results if result["is_last_stage"]]
    logits = torch.cat([result["logits"] for result in last_stage], dim=-1)
    vocab_size = reference["hf_config"]["vocab_size"]
    assert logits.shape[-1] == 256 and (logits[..., vocab_size:] == torch.finfo(torch.float32).min).all()
    difference = (logits[..., :vocab_size] - reference["logits"]).abs().max().item()
    worst = max(((error, name) for result in results for name, error in result["gradient_errors"].items()))
    assert difference < 1e-4
    assert last_stage[0]["loss"] == pytest.approx(reference["loss"], abs=2e-6)
    assert worst[0] < 2e-5, worst
    assert all(result["norm"] == pytest.approx(reference["norm"], rel=1e-5) for result in results)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_step_equals_that_of_transformers(reference: dict[str, Any], layout: str):
    compare(reference, *LAYOUTS[layout])


@pytest.mark.parametrize("hf_config", [{**GEMMA3, "num_key_value_heads": 1}, QWEN2, QWEN3], ids=["gemma3, one", "qwen2, two", "qwen3, two"])
def test_fewer_key_value_heads_than_tensor_parallel_ranks_serve_all_of_them(hf_config: dict[str, Any], tmp_path: Path):
    compare(reference_of(hf_config, tmp_path), 4, 1, sequence_parallel=True)
