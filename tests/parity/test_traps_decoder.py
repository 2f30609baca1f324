"""What goes wrong quietly when a decoder is built the obvious way, each with its damage, beside the right way that has none.

Every trap takes a model that is right, undoes one thing, and must then be seen by the very comparison with transformers that the
parity tests make: so those tests could fail.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.nn import functional

from tests.parity import test_decoder_parity as parity
from tests.support.ranks import run_ranks
from tests.support.tiny_models import GEMMA3, GPT2, QWEN2, QWEN3, build_model, start_megatron

WINDOW = GEMMA3["sliding_window"]
TIED = {**QWEN2, "num_hidden_layers": 4, "tie_word_embeddings": True}


def nothing(model: Any) -> None:
    """The right model."""


def window_counts_without_the_query(model: Any) -> None:
    """transformers' window counts the query itself, Megatron's does not."""
    for module in model.modules():
        if getattr(module, "window", None):
            module.window = (WINDOW, 0)


def exact_gelu(model: Any) -> None:
    """`gelu_new` and `gelu_pytorch_tanh` are the tanh approximation."""
    for layer in model.decoder.layers:
        layer.mlp.activation_func.function = functional.gelu


def one_rotary_base(model: Any) -> None:
    model.rotary_pos_emb.local.inv_freq = model.rotary_pos_emb.inv_freq


def usual_softmax_scale(model: Any) -> None:
    """`query_pre_attn_scalar` is not the size of a head."""
    for layer in model.decoder.layers:
        layer.self_attention.core_attention.softmax_scale = None


def unscaled_embedding(model: Any) -> None:
    model.embedding.word_embeddings._forward_hooks.clear()


def unmasked_padding(model: Any) -> None:
    """The rows between the vocabulary and its padding are zero, so each takes exp(0) of the softmax."""
    model.output_layer._forward_hooks.clear()


def unsummed_query_key_norms(model: Any) -> None:
    """Megatron sums these norms' gradients over tensor parallel ranks only if it is told that they are there."""
    model.config.qk_layernorm = False


def lost_marks(model: Any) -> None:
    """Megatron marks split weights while it initialises them, and not when that is switched off."""
    for parameter in model.parameters():
        if hasattr(parameter, "tensor_model_parallel"):
            del parameter.tensor_model_parallel, parameter.partition_dim, parameter.partition_stride


def lost_sequence_marks(model: Any) -> None:
    """Norms see a part of the sequence; without the mark their gradients are those of the part."""
    for parameter in model.parameters():
        parameter.sequence_parallel = False


def untied_stages(model: Any) -> None:
    """Embedding and head are one tensor on two stages, whose gradients must be added up."""
    model.share_embeddings_and_output_weights = False


Trap = Callable[[Any], None]
# model, (tp, pp, sequence parallel), trap, what it damages, and by how much at least
TRAPS: list[tuple[dict[str, Any], tuple[int, int, bool], Trap, str, float]] = [
    (GEMMA3, (1, 1, False), window_counts_without_the_query, "logits", 0.05),
    (GEMMA3, (1, 1, False), exact_gelu, "logits", 2e-4),
    (GEMMA3, (1, 1, False), one_rotary_base, "logits", 0.05),
    (GEMMA3, (1, 1, False), usual_softmax_scale, "logits", 0.01),
    (GEMMA3, (1, 1, False), unscaled_embedding, "logits", 0.1),
    (GEMMA3, (1, 1, False), unmasked_padding, "loss", 0.1),
    (GPT2, (1, 1, False), exact_gelu, "gradients", 2e-4),  # the logits move by less than their tolerance
    (GPT2, (1, 1, False), unmasked_padding, "gradients", 0.03),
    (QWEN3, (2, 1, False), unsummed_query_key_norms, "gradients", 0.3),
    (QWEN3, (2, 1, False), lost_marks, "norm", 0.05),
    (GEMMA3, (2, 1, True), lost_sequence_marks, "gradients", 0.3),
    (TIED, (1, 2, False), untied_stages, "gradients", 0.3),
]
SETUPS = {f"{config['model_type']}-tp{layout[0]}-pp{layout[1]}": (config, layout) for config, layout, *_ in TRAPS}


def step_of_each(folder: str, reference: dict[str, Any], layout: tuple[int, int, bool], traps: list[Trap]) -> list[dict[str, float]]:
    """One training step for each trap, in turn; the differences to transformers on this rank."""
    from megatron.core import parallel_state

    differences = []
    for trap in traps:
        waiting = [trap]

        def spoiled(*arguments: Any, waiting: list[Trap] = waiting, **fields: Any) -> Any:
            model = build_model(*arguments, **fields)
            if waiting:  # the first model is trained, the second one only holds what gradients are expected
                waiting.pop()(model)
            return model

        parity.build_model = spoiled
        result = parity.train_once(folder, reference["hf_config"], *layout)
        parallel_state.destroy_model_parallel()
        differences.append(differences_to(reference, result, complete=layout[0] == 1))
    return differences


def differences_to(reference: dict[str, Any], result: dict[str, Any], complete: bool) -> dict[str, float]:
    found = {"gradients": max(result["gradient_errors"].values()), "norm": abs(result["norm"] / reference["norm"] - 1)}
    if result["loss"] is not None:
        found["loss"] = abs(result["loss"] - reference["loss"])
        if complete:  # all columns are on this rank
            logits = result["logits"][..., : reference["hf_config"]["vocab_size"]]
            found["logits"] = (logits - reference["logits"]).abs().max().item()
    return found


@pytest.fixture(scope="module", params=SETUPS)
def damages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], dict[str, dict[str, float]]]:
    """The setup's traps, and for each its name's largest differences on any rank."""
    config, layout = SETUPS[request.param]
    reference = parity.reference_of(config, tmp_path_factory.mktemp("reference"))
    here = [trap for trap in TRAPS if trap[:2] == (config, layout)]
    traps = [nothing, *(trap for _, _, trap, _, _ in here)]
    ranks = run_ranks(layout[0] * layout[1], step_of_each, reference["folder"], reference, layout, traps, timeout_s=240.0)
    largest = {
        trap.__name__: {kind: max(found[kind] for found in founds if kind in found) for kind in set().union(*founds)}
        for trap, founds in zip(traps, zip(*ranks, strict=True), strict=True)
    }
    return here, largest


def test_each_trap_does_its_damage_and_the_model_without_it_none(damages: tuple[list[Any], dict[str, dict[str, float]]]):
    here, largest = damages
    assert max(largest["nothing"].values()) < 1e-4
    for _, _, trap, kind, least in here:
        assert largest[trap.__name__][kind] > least, (trap.__name__, largest[trap.__name__])


def test_gpt2_with_exact_gelu_is_computed_so(tmp_path: Path):
    parity.compare(parity.reference_of({**GPT2, "activation_function": "gelu"}, tmp_path), 1, 1, sequence_parallel=False)


def padded_rows(tp: int) -> tuple[int, int]:
    """Rows of the whole embedding of 300 tokens: in our model, and as NeMo pads."""
    from types import SimpleNamespace

    from nemo.lightning.base import get_vocab_size

    start_megatron(tp)
    model = build_model({**TIED, "vocab_size": 300}, tp)
    theirs = get_vocab_size(SimpleNamespace(tensor_model_parallel_size=tp), 300, 128)
    return model.sharded_state_dict()["embedding.word_embeddings.weight"].global_shape[0], theirs


def test_padding_of_the_vocabulary_does_not_depend_on_tp_as_nemos_does():
    assert [run_ranks(tp, padded_rows, tp)[0] for tp in (1, 2)] == [(384, 384), (384, 512)]
