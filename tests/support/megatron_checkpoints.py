"""Write a Megatron distributed checkpoint under any layout, as NeMo lays it out (`module.` before every key). Runs on ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.tiny_models import build_model, start_megatron


def save_from(
    source: Any,
    weights_dir: str | None,
    hf_config: Mapping[str, Any],
    tp: int = 1,
    pp: int = 1,
    dtype: str = "float32",
    apart: bool = False,
) -> dict[str, Any]:
    """Build the model on this rank, fill it from a weight source and save it; returns what loading reported.

    weights_dir: folder to write, None to write nothing. apart: store every layer under keys of its own.
    """
    import torch
    from megatron.core import dist_checkpointing

    from nemo_ext.convert.load import different_tensors, load_weights, weights_fingerprint
    from nemo_ext.models.family import family_of

    start_megatron(tp, pp)
    rules, loaded = family_of(hf_config).build_mapping(hf_config), []
    fields = {"params_dtype": getattr(torch, dtype), "hetereogenous_dist_checkpoint": apart}
    model = build_model(hf_config, tp, pp, weight_loader=lambda built: loaded.append(load_weights(built, rules, source)), **fields)
    assert not different_tensors(model, rules, source)
    if weights_dir is not None:
        Path(weights_dir).mkdir(parents=True, exist_ok=True)
        dist_checkpointing.save(model.sharded_state_dict(prefix="module."), weights_dir)
    return {"report": loaded[0], "fingerprint": weights_fingerprint(model, rules)}


def save_hf_weights(hf_dir: str, weights_dir: str, hf_config: Mapping[str, Any], *layout: Any) -> dict[str, Any]:
    """`save_from` the weights of a Hugging Face folder."""
    from nemo_ext.convert.sources import HuggingFaceWeights
    from nemo_ext.models.family import family_of

    return save_from(HuggingFaceWeights(hf_dir, family_of(hf_config).build_mapping(hf_config)), weights_dir, hf_config, *layout)


def save_seeded(seed: int, weights_dir: str | None, hf_config: Mapping[str, Any], *layout: Any) -> dict[str, Any]:
    """`save_from` seeded weights."""
    return save_from(seeded_weights(seed, hf_config), weights_dir, hf_config, *layout)


def seeded_weights(seed: int, hf_config: Mapping[str, Any]) -> Any:
    """The seeded weights of a model."""
    from nemo_ext.convert.rules import layer_count
    from nemo_ext.convert.seeded import SeededWeights
    from nemo_ext.models.family import family_of

    rules = family_of(hf_config).build_mapping(hf_config)
    return SeededWeights(seed, hf_config["initializer_range"], rules, layer_count(hf_config))
