"""Encoders in Megatron compute what transformers computes: logits, padded and packed, gradients, twenty training steps, in every layout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.masked_batches import PACKED_ROW, ROW, halves, hugging_face_arguments, masked_batch, packed
from tests.support.parity import LAYOUTS, gradient_errors, loader, save_gradients, wrap
from tests.support.ranks import run_ranks
from tests.support.tiny_models import BERT, MODERNBERT, build_model, start_megatron, write_random_hf_model

MODELS = {"bert": BERT, "modernbert": MODERNBERT}
STEPS, LEARNING_RATE = 20, 1e-3


def write_reference(folder: str, hf_config: dict[str, Any]) -> dict[str, Any]:
    """Write the model and, as a model of the same shape, its gradients; return logits, gradient norm and the losses of a training."""
    model = write_random_hf_model(Path(folder, "weights"), hf_config)
    trained = copy.deepcopy(model)
    logits, loss = loss_of(model, masked_batch(hf_config))
    loss.backward()
    norm = save_gradients(model, Path(folder, "gradients"))
    optimizer = torch.optim.AdamW(trained.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        _, loss = loss_of(trained, masked_batch(hf_config, seed=step % 2))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"logits": logits.detach(), "norm": norm, "losses": losses}


def loss_of(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(**hugging_face_arguments(batch)).logits
    return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())


def train(folder: str, hf_config: dict[str, Any], tp: int, pp: int, sequence_parallel: bool) -> dict[str, Any]:
    """Logits, then a training through Megatron's own schedule, data parallel wrapper and optimizer."""
    from megatron.core import parallel_state
    from megatron.core.distributed import finalize_model_grads
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    start_megatron(tp, pp)
    fields = {"sequence_parallel": sequence_parallel, "finalize_model_grads_func": finalize_model_grads}
    model = build_model(hf_config, tp, pp, weight_loader=loader(folder, "weights", hf_config), **fields)
    wrapped = wrap(model)
    batch = masked_batch(hf_config)
    with torch.no_grad():
        logits = logits_of(wrapped, halves(batch), ROW, 2), logits_of(wrapped, [packed(batch)], PACKED_ROW, 1)
    settings = OptimizerConfig(optimizer="adam", lr=LEARNING_RATE, weight_decay=0.0, clip_grad=0.0)
    optimizer = get_megatron_optimizer(settings, [wrapped])
    losses, norms, errors = [], [], {}
    for step in range(STEPS):
        wrapped.zero_grad_buffer()
        optimizer.zero_grad()
        losses.append(run_schedule(wrapped, masked_batch(hf_config, seed=step % 2)))
        if step == 0:
            errors = gradient_errors(model, build_model(hf_config, tp, pp, weight_loader=loader(folder, "gradients", hf_config), **fields))
        norms.append(optimizer.step()[1])
    return {
        "is_last_stage": parallel_state.is_pipeline_last_stage(),
        "logits": logits,
        "losses": losses,
        "norm": norms[0],
        "gradient_errors": errors,
    }


def logits_of(model: Any, batches: list[dict[str, Any]], length: int, rows: int) -> torch.Tensor | None:
    """Logits `[batch, seq, vocabulary / tp]` on the last stage, through the pipeline."""

    def forward(data: Any, model: Any) -> Any:
        return model(**{**next(data), "labels": None}), lambda output: (output.sum(), {"logits": output})

    outputs = schedule(model, batches, length, rows, forward, forward_only=True)
    return torch.cat([output["logits"] for output in outputs]) if outputs else None


def run_schedule(model: Any, batch: dict[str, Any]) -> float:
    """Forward and backward over two micro batches; the mean loss of the labelled tokens of both, on the last stage."""
    labelled = int((batch["labels"] != -100).sum())

    def forward(data: Any, model: Any) -> Any:
        return model(**next(data)), lambda losses: (2 * losses.sum() / labelled, {"loss": losses.sum().item() / labelled})

    outputs = schedule(model, halves(batch), ROW, 2, forward, forward_only=False)
    return sum(output["loss"] for output in outputs)


def schedule(model: Any, batches: list[dict[str, Any]], length: int, rows: int, forward: Any, forward_only: bool) -> Any:
    from megatron.core.pipeline_parallel import get_forward_backward_func

    return get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=iter(batches),
        model=[model],
        num_microbatches=len(batches),
        seq_length=length,
        micro_batch_size=rows,
        forward_only=forward_only,
    )


@pytest.fixture(scope="module", params=MODELS)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, hf_config = tmp_path_factory.mktemp("reference"), MODELS[request.param]
    return {"folder": str(folder), "hf_config": hf_config, **run_ranks(1, write_reference, str(folder), hf_config)[0]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_twenty_training_steps_equal_those_of_transformers(reference: dict[str, Any], layout: str):
    tp, pp, sequence_parallel = LAYOUTS[layout]
    results = run_ranks(tp * pp, train, reference["folder"], reference["hf_config"], tp, pp, sequence_parallel)
    last_stage = [result for result in results if result["is_last_stage"]]
    padded_logits, packed_logits = (torch.cat(parts, dim=-1) for parts in zip(*(result["logits"] for result in last_stage), strict=True))
    real, vocab_size = masked_batch(reference["hf_config"])["attention_mask"], reference["hf_config"]["vocab_size"]
    assert padded_logits.shape[-1] == 256 and (padded_logits[..., vocab_size:] == torch.finfo(torch.float32).min).all()
    expected = reference["logits"][real]
    assert (padded_logits[real][:, :vocab_size] - expected).abs().max() < 1e-4
    assert (packed_logits[0, : len(expected), :vocab_size] - expected).abs().max() < 1e-4
    worst = max((error, name) for result in results for name, error in result["gradient_errors"].items())
    assert worst[0] < 1e-4, worst
    assert all(result["norm"] == pytest.approx(reference["norm"], rel=1e-5) for result in results)
    for result in last_stage:
        assert result["losses"] == pytest.approx(reference["losses"], abs=1e-5, rel=0)
    assert reference["losses"][-2] < reference["losses"][0] - 0.2
