"""Details of the Qwen2 model that decide whether a run is right: rounding, recomputation, padding, checkpoint keys, layer choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_ext.common.errors import ConfigError, VersionError
from tests.support.ranks import RankError, run_ranks
from tests.support.tiny_models import GEMMA3, GPT2, QWEN2, build_model, start_megatron, token_batch, write_random_hf_model

SMALL = {**QWEN2, "num_hidden_layers": 2, "tie_word_embeddings": True}


def loss_and_gradients(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    positions = torch.arange(tokens.size(1) - 1).expand(len(tokens), -1)
    loss = model(tokens[:, :-1], positions, None, labels=tokens[:, 1:]).mean()
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def norm_differences() -> dict[str, float]:
    """Largest difference of our norm to that of transformers, in a dtype and for weights away from 1."""
    from megatron.core.transformer.transformer_config import TransformerConfig
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    from nemo_ext.layers.norm import Norm

    size, epsilon, differences = 48, 1e-6, {}
    theirs_by_name = {
        "rms": (Qwen2RMSNorm(size, epsilon), "RMSNorm", False, True),
        "zero-centred rms": (Gemma3RMSNorm(size, epsilon), "RMSNorm", True, True),
        "layer norm": (torch.nn.LayerNorm(size, epsilon), "LayerNorm", False, True),
        "layer norm without bias": (torch.nn.LayerNorm(size, epsilon, bias=False), "LayerNorm", False, False),
    }
    for dtype in (torch.float32, torch.bfloat16):
        for name, (theirs, normalization, zero_centered, bias) in theirs_by_name.items():
            config = TransformerConfig(
                num_layers=1, hidden_size=size, num_attention_heads=1, normalization=normalization,
                layernorm_zero_centered_gamma=zero_centered, params_dtype=dtype,
            )  # fmt: skip
            ours = Norm(config, size, epsilon, bias=bias)
            theirs = theirs.to(dtype)
            with torch.no_grad():
                for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                    other.copy_(one.normal_(0.8, 0.3))
            hidden = torch.randn(5, 3, size).to(dtype) * 3
            assert ours(hidden).dtype == dtype
            differences[f"{name}, {dtype}"] = (ours(hidden) - theirs(hidden)).abs().max().item()
    return differences


def test_norms_round_as_those_of_transformers():
    differences = run_ranks(1, norm_differences)[0]
    assert {name: difference for name, difference in differences.items() if difference > 1e-6} == {}
    assert differences["rms, torch.bfloat16"] == 0.0 and differences["zero-centred rms, torch.bfloat16"] == 0.0


def recomputed(sequence_parallel: bool) -> dict[str, tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Loss and gradients with dropout, from the same weights and seed, for each way to recompute."""
    from megatron.core import tensor_parallel

    start_megatron(tp=2)
    results, weights = {}, None
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    for name, fields in (("none", {}), ("selective", {"recompute_granularity": "selective"}), ("full", full)):
        tensor_parallel.model_parallel_cuda_manual_seed(3)
        fields.update(attention_dropout=0.2, hidden_dropout=0.1, sequence_parallel=sequence_parallel)
        model = build_model(SMALL, tp=2, **fields)
        weights = weights or model.state_dict()
        model.load_state_dict(weights)
        tensor_parallel.model_parallel_cuda_manual_seed(4)
        torch.manual_seed(4)
        results[name] = loss_and_gradients(model, token_batch(SMALL, length=49))  # 48 positions divide by tp
    return results


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_recomputation_repeats_the_dropout_and_changes_no_gradient(sequence_parallel: bool):
    for results in run_ranks(2, recomputed, sequence_parallel):
        loss, gradients = results["none"]
        for name in ("selective", "full"):
            assert torch.equal(results[name][0], loss), name
            worst = max((results[name][1][key] - gradient).abs().max().item() for key, gradient in gradients.items())
            assert worst < 1e-6, name


def padding_rows(tp: int) -> dict[str, Any]:
    """Gradient of the embedding's padding rows, all of this rank's rows, and the loss after these rows were changed."""
    start_megatron(tp)
    model, tokens = build_model(SMALL, tp, attention_dropout=0.0), token_batch(SMALL)
    embedding = model.embedding.word_embeddings
    padding = max(0, SMALL["vocab_size"] - embedding.vocab_start_index)
    before, gradients = loss_and_gradients(model, tokens)
    rows = gradients["embedding.word_embeddings.weight"][padding:]
    with torch.no_grad():
        embedding.weight[padding:] = 100.0
    after, _ = loss_and_gradients(model, tokens)
    return {"rows": len(rows), "largest": rows.abs().max().item() if len(rows) else 0.0, "before": before, "after": after}


@pytest.mark.parametrize("tp", [1, 2])
def test_padding_of_the_vocabulary_neither_learns_nor_counts(tp: int):
    results = run_ranks(tp, padding_rows, tp)
    assert sum(result["rows"] for result in results) == 256 - 203
    assert all(result["largest"] == 0.0 and torch.equal(result["before"], result["after"]) for result in results)


def rounding_in_bf16(folder: str, hf_config: dict[str, Any]) -> tuple[float, float]:
    """Mean difference of the logits to transformers in bf16, and of transformers in bf16 to itself in fp32."""
    from nemo_ext.convert.load import load_weights
    from nemo_ext.convert.sources import HuggingFaceWeights
    from nemo_ext.models.family import family_of

    hf_model, tokens = write_random_hf_model(folder, hf_config), token_batch(hf_config)
    start_megatron()
    rules = family_of(hf_config).build_mapping(hf_config)
    source = HuggingFaceWeights(Path(folder), rules)
    model = build_model(hf_config, params_dtype=torch.bfloat16, bf16=True, weight_loader=lambda built: load_weights(built, rules, source))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        exact = hf_model(tokens).logits
        theirs = hf_model.to(torch.bfloat16)(tokens).logits.float()
        ours = model.eval()(tokens, torch.arange(tokens.size(1)).expand_as(tokens), None)[..., : hf_config["vocab_size"]].float()
    return (ours - theirs).abs().mean().item(), (theirs - exact).abs().mean().item()


@pytest.mark.parametrize("hf_config", [SMALL, GEMMA3, GPT2], ids=["qwen2", "gemma3", "gpt2"])
def test_bf16_differs_from_transformers_by_no_more_than_bf16_does(hf_config: dict[str, Any], tmp_path: Path):
    ours, rounding = run_ranks(1, rounding_in_bf16, str(tmp_path / "model"), hf_config)[0]
    assert ours < 1.5 * rounding


def checkpoint_keys() -> set[str]:
    start_megatron()
    entries = build_model(SMALL).sharded_state_dict().values()
    return {entry.key for entry in entries if "_extra_state" not in entry.key}


def test_checkpoint_keys_are_those_of_transformer_engine_layers():
    assert run_ranks(1, checkpoint_keys)[0] == {
        "embedding.word_embeddings.weight",
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
        "decoder.layers.self_attention.linear_qkv.weight",
        "decoder.layers.self_attention.linear_qkv.bias",
        "decoder.layers.self_attention.linear_proj.weight",
        "decoder.layers.mlp.linear_fc1.layer_norm_weight",
        "decoder.layers.mlp.linear_fc1.weight",
        "decoder.layers.mlp.linear_fc2.weight",
        "decoder.final_layernorm.weight",
    }


def layer_choices() -> dict[str, str]:
    import sys

    from nemo_ext.layers.spec import resolve_layer_spec

    sys.modules["transformer_engine"] = None  # type: ignore[assignment]  # not installed, as far as imports can tell
    choices = {name: resolve_layer_spec(name) for name in ("auto", "local")}
    for name, error in (("te", VersionError), ("tee", ConfigError)):
        with pytest.raises(error) as caught:
            resolve_layer_spec(name)
        choices[name] = str(caught.value)
    return choices


def test_without_transformer_engine_auto_is_local_and_te_is_refused_with_the_remedy():
    choices = run_ranks(1, layer_choices)[0]
    assert choices["auto"] == choices["local"] == "local"
    assert "model.layer_spec=local" in choices["te"]
    assert "Did you mean 'te'" in choices["tee"]


def gemma3_layers(layer_spec: str) -> str:
    from nemo_ext.models.family import family_of

    return family_of(GEMMA3).build_megatron_config(GEMMA3, layer_spec=layer_spec).layer_spec


def test_gemma3_takes_local_layers_and_refuses_others_by_what_they_lack():
    assert run_ranks(1, gemma3_layers, "auto") == ["local"]
    with pytest.raises(RankError, match=r"ConfigError: model.layer_spec=te.* two rotary bases"):
        run_ranks(1, gemma3_layers, "te")
