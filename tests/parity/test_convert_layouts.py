"""However a model is split, its ranks together hold the source's weights, bit for bit, and would notice if they did not."""

from __future__ import annotations

from typing import Any

import pytest

from nemo_ext.convert.load import source_fingerprint
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.convert.stream import write_hf_weights
from nemo_ext.models.family import family_of
from tests.support.megatron_checkpoints import save_hf_weights, save_seeded, seeded_weights
from tests.support.ranks import RankError, run_ranks
from tests.support.tiny_models import QWEN2, build_model, start_megatron, write_random_hf_model

SMALL: dict[str, Any] = {**QWEN2, "num_hidden_layers": 4, "tie_word_embeddings": True}
LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # tp, pp
RULES = family_of(SMALL).build_mapping(SMALL)


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    write_random_hf_model(folder, SMALL)
    return folder


@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
def test_ranks_hold_the_weights_of_the_hugging_face_folder(hf_folder, tmp_path, tp, pp):
    results = run_ranks(tp * pp, save_hf_weights, str(hf_folder), None, SMALL, tp, pp)
    expected = source_fingerprint(RULES, SMALL["num_hidden_layers"], HuggingFaceWeights(hf_folder, RULES))
    for result in results:
        assert result["fingerprint"] == result["report"].fingerprint == expected
    assert sum(result["report"].bytes for result in results) >= 4 * sum(rule.rows for rule in RULES)


@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
def test_untrained_weights_are_the_same_in_every_layout_and_in_the_exported_baseline(tmp_path, tp, pp):
    exported = write_hf_weights(SMALL, RULES, seeded_weights(11, SMALL), tmp_path / "untrained")
    for result in run_ranks(tp * pp, save_seeded, 11, None, SMALL, tp, pp):
        assert result["fingerprint"] == exported.fingerprint


def test_data_parallel_copies_are_counted_once(tmp_path):
    expected = source_fingerprint(RULES, SMALL["num_hidden_layers"], seeded_weights(3, SMALL))
    assert [result["fingerprint"] for result in run_ranks(2, save_seeded, 3, None, SMALL, 1, 1)] == [expected] * 2


def change_a_weight(hf_config: dict[str, Any]) -> tuple[bool, list[str]]:
    """Load, change one element on the last rank; returns whether the fingerprint changed and which tensors differ."""
    import torch

    from nemo_ext.convert.load import different_tensors, load_weights, weights_fingerprint

    start_megatron(tp=2)
    source, rules = seeded_weights(1, hf_config), family_of(hf_config).build_mapping(hf_config)
    model = build_model(hf_config, tp=2)
    report = load_weights(model, rules, source)
    if torch.distributed.get_rank() == 1:
        with torch.no_grad():
            model.decoder.layers[2].mlp.linear_fc1.weight[-1, 0] += 1e-6
    return weights_fingerprint(model, rules) != report.fingerprint, different_tensors(model, rules, source)


def test_a_changed_weight_is_noticed_on_its_rank_and_named():
    (changed_on_first, first), (changed_on_second, second) = run_ranks(2, change_a_weight, SMALL)
    assert changed_on_first
    assert changed_on_second
    assert first == []
    (name,) = second
    assert name.startswith("decoder.layers.2.mlp.linear_fc1.weight")


def load_with_table_of(model_config: dict[str, Any], table_config: dict[str, Any]) -> None:
    """Load a model with the table of another config."""
    from nemo_ext.convert.load import load_weights

    start_megatron()
    load_weights(build_model(model_config), family_of(table_config).build_mapping(table_config), seeded_weights(1, table_config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 300}, r"'embedding.word_embeddings.weight' has shape \[256, 64\], but the Hugging Face config gives \[384, 64\]"),
        ({"intermediate_size": 128}, r"linear_fc1.weight' has shape \[224, 64\], but the Hugging Face config gives \[256, 64\]"),
        ({"tie_word_embeddings": False}, r"output_layer.weight \(0 of 16384 elements\)"),
    ],
)
def test_table_of_another_model_is_refused(change, message):
    with pytest.raises(RankError, match=message):
        run_ranks(1, load_with_table_of, SMALL, {**SMALL, **change})


def test_model_with_a_tensor_that_the_table_lacks_is_refused():
    with pytest.raises(RankError, match=r"'output_layer.weight' is not in the mapping table"):
        run_ranks(1, load_with_table_of, {**SMALL, "tie_word_embeddings": False}, SMALL)
