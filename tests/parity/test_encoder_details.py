"""What would go unnoticed in an encoder: each detail that could be wrong changes the logits, and each other way to compute does not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.support.masked_batches import hugging_face_arguments, masked_batch, packed
from tests.support.parity import loader
from tests.support.ranks import RankError, run_ranks
from tests.support.tiny_models import BERT, MODERNBERT, build_model, start_megatron, write_random_hf_model

MODELS = {"bert": BERT, "modernbert": MODERNBERT}
FULL = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
SELECTIVE = {"recompute_granularity": "selective"}


def measure(folder: str, hf_config: dict[str, Any]) -> dict[str, Any]:
    """On one rank, everything that the tests below look at."""
    start_megatron()
    reference = write_random_hf_model(Path(folder, "weights"), hf_config)
    batch = masked_batch(hf_config)
    real, vocab_size = batch["attention_mask"], hf_config["vocab_size"]

    def build(**fields: Any) -> Any:
        return build_model(hf_config, weight_loader=loader(folder, "weights", hf_config), **fields)

    def logits_of(model: Any, **changes: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(**{**batch, **changes, "labels": None})[real][:, :vocab_size].float()

    with torch.no_grad():
        expected = reference(**hugging_face_arguments(batch)).logits[real]
        in_bf16 = reference.bfloat16()(**hugging_face_arguments(batch)).logits[real].float()
    without_bias = build()
    without_bias.output_layer.bias.data.zero_()
    return {
        "expected": expected,
        "transformers in bf16": in_bf16,
        "bf16": logits_of(build(params_dtype=torch.bfloat16, bf16=True)),
        "plain": logits_of(build()),
        "without bias": logits_of(without_bias),
        "other padding": logits_of(build(), input_ids=batch["input_ids"].masked_fill(~real, 7)),
        "steps": {
            "padded": step(build(), batch),
            "packed": step(build(), packed(batch)),
            "full recompute, padded": step(build(**FULL), batch),
            "full recompute, packed": step(build(**FULL), packed(batch)),
            "selective recompute, packed": step(build(**SELECTIVE), packed(batch)),
        },
        "without labels": step(build(), {**batch, "labels": torch.full_like(batch["labels"], -100)}),
        "empty pack": step(build(), empty_pack(batch)),
        "with dropout": step(build(attention_dropout=0.5), packed(batch)),
        "labels": batch["labels"],
    }


def empty_pack(batch: dict[str, Any]) -> dict[str, Any]:
    """A row of padding alone."""
    row = packed(batch)
    return {**row, "cu_seqlens": row["cu_seqlens"][:1], "labels": torch.full_like(row["labels"], -100)}


def step(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Losses per token of a forward pass in training, and all gradients in one vector."""
    losses = model.train()(**batch)
    losses.sum().backward()
    return {"losses": losses.detach(), "gradients": torch.cat([parameter.grad.flatten() for parameter in model.parameters()])}


@pytest.fixture(scope="module", params=MODELS)
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_ranks(1, measure, str(tmp_path_factory.mktemp("weights")), MODELS[request.param])[0]


def test_padding_and_packing_and_recomputation_change_neither_losses_nor_gradients(measured: dict[str, Any]):
    padded = measured["steps"]["padded"]
    labelled = measured["labels"] != -100
    for name, found in measured["steps"].items():
        losses = found["losses"][found["losses"] != 0]
        assert losses.tolist() == pytest.approx(padded["losses"][labelled].tolist(), abs=1e-5), name
        assert (found["gradients"] - padded["gradients"]).abs().max() < 1e-5 * padded["gradients"].abs().max(), name


def test_only_labelled_positions_have_a_loss_and_it_is_the_cross_entropy(measured: dict[str, Any]):
    real = torch.zeros_like(measured["labels"], dtype=torch.bool)
    real[:] = masked_batch(BERT)["attention_mask"]
    losses, labels = measured["steps"]["padded"]["losses"], measured["labels"]
    expected = torch.nn.functional.cross_entropy(measured["expected"], labels[real], reduction="none")
    assert losses.dtype == torch.float32
    assert (losses[real] - expected).abs().max() < 1e-5
    assert not losses[labels == -100].any()


@pytest.mark.parametrize("name", ["without labels", "empty pack"])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(measured: dict[str, Any], name: str):
    assert not measured[name]["losses"].any()
    assert not measured[name]["gradients"].any()


def test_attention_dropout_reaches_packed_sequences(measured: dict[str, Any]):
    dropped, kept = measured["with dropout"]["losses"], measured["steps"]["packed"]["losses"]
    assert torch.isfinite(dropped).all() and (dropped - kept).abs().max() > 1e-3


def test_what_stands_in_the_padding_does_not_matter(measured: dict[str, Any]):
    assert torch.equal(measured["plain"], measured["other padding"])


def test_the_output_layers_bias_counts(measured: dict[str, Any]):
    assert (measured["plain"] - measured["expected"]).abs().max() < 1e-4
    assert (measured["without bias"] - measured["expected"]).abs().max() > 0.1


def test_bf16_is_as_far_from_fp32_as_in_transformers(measured: dict[str, Any]):
    ours, theirs = ((measured[name] - measured["expected"]).abs().mean() for name in ("bf16", "transformers in bf16"))
    assert 0 < ours < 1.5 * theirs


CHANGES = {
    "bert with tanh": (BERT, {"hidden_act": "gelu_new"}),
    "modernbert with tanh": (MODERNBERT, {"hidden_activation": "gelu_pytorch_tanh"}),
    "modernbert's head with erf": (MODERNBERT, {"classifier_activation": "gelu"}),
    "modernbert with a window larger by one on either side": (MODERNBERT, {"local_attention": 10}),
    "modernbert with an odd window, half of which is rounded down": (MODERNBERT, {"local_attention": 11}),
    "modernbert with every second layer global": (MODERNBERT, {"global_attn_every_n_layers": 2}),
    "modernbert with one rotary base": (MODERNBERT, {"local_rope_theta": None}),
    "modernbert with global layers only": (MODERNBERT, {"global_attn_every_n_layers": 1}),
}


def logits_of_changes(folder: str) -> dict[str, list[torch.Tensor]]:
    """For each change, logits of ours with it, of transformers with it, and of transformers without it."""
    start_megatron()
    results = {}
    for number, (name, (unchanged, change)) in enumerate(CHANGES.items()):
        hf_config, batch = {**unchanged, **change}, masked_batch(unchanged)
        with torch.no_grad():
            models = [write_random_hf_model(Path(folder, str(number)), config) for config in (unchanged, hf_config)]
            theirs = [model(**hugging_face_arguments(batch)).logits for model in models]
            ours = build_model(hf_config, weight_loader=loader(folder, str(number), hf_config)).eval()(**{**batch, "labels": None})
        real = batch["attention_mask"]
        results[name] = [ours[real][:, : hf_config["vocab_size"]], theirs[1][real], theirs[0][real]]
    return results


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    return run_ranks(1, logits_of_changes, str(tmp_path_factory.mktemp("changes")))[0]


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_detail_changes_the_logits_as_in_transformers(changed: dict[str, list[torch.Tensor]], name: str):
    ours, theirs, unchanged = changed[name]
    difference = (theirs - unchanged).abs().max()
    assert difference > 1e-4
    assert (ours - theirs).abs().max() < min(1e-4, difference / 20)


def ask_for_transformer_engine(hf_config: dict[str, Any]) -> None:
    start_megatron()
    build_model(hf_config, layer_spec="te")


@pytest.mark.parametrize("name", MODELS)
def test_transformer_engine_layers_are_refused(name: str):
    with pytest.raises(RankError, match=r"ConfigError: model.layer_spec=te, but encoders have local layers only"):
        run_ranks(1, ask_for_transformer_engine, MODELS[name])


def shapes_from_the_kernel() -> tuple[Any, Any]:
    """Shapes of output and gradient of torch's kernel for packed sequences, called as on a GPU, on tensors without data."""
    from nemo_ext.layers.packed_attention import _torch_attention, packed_kernel

    assert packed_kernel() is not None
    packs = [torch.empty(20, 2, 16, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(3)]
    context = _torch_attention(*packs, torch.empty(3, dtype=torch.int32, device="meta"), 13, (3, 3), None)
    context.sum().backward()
    assert packs[0].grad is not None
    return tuple(context.shape), tuple(packs[0].grad.shape)


@pytest.mark.parametrize("known", [True, False], ids=["a release that can be told", "an older one"])
def test_flash_attn_is_told_to_be_deterministic_where_it_knows_how(known: bool, monkeypatch: pytest.MonkeyPatch):
    # flash-attn cannot be installed without a GPU's compiler; these are the signatures of 2.8 and of 2.3.
    from nemo_ext.layers.packed_attention import _flash_attention

    def newer(q, k, v, cu_q, cu_k, max_q, max_k, *, softmax_scale=None, window_size=(-1, -1), deterministic=False):
        return q, softmax_scale, window_size, deterministic

    def older(q, k, v, cu_q, cu_k, max_q, max_k, *, softmax_scale=None, window_size=(-1, -1)):
        return q, softmax_scale, window_size

    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = newer if known else older  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    query = torch.ones(4, 1, 8)
    found: Any = _flash_attention(query, query, query, torch.tensor([0, 4]), 4, (2, 2), 0.5)
    assert found == ((query, 0.5, (2, 2), True) if known else (query, 0.5, (2, 2)))


def test_the_kernel_for_packed_sequences_takes_what_it_is_given():
    assert run_ranks(1, shapes_from_the_kernel) == [((20, 2, 16), (20, 2, 16))]
