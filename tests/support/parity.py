"""Compare a training step of a Megatron model with that of transformers: what the tests of decoders and of encoders share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

LAYOUTS = {  # tp, pp, sequence parallel
    "one rank": (1, 1, False),
    "tp2": (2, 1, False),
    "tp2 with sequence parallel": (2, 1, True),
    "pp2": (1, 2, False),
    "tp2 x pp2 with sequence parallel": (2, 2, True),
}


def save_gradients(model: Any, folder: Path | str) -> float:
    """Write a transformers model's gradients as a model of the same shape; returns their norm."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(gradients[name])
    model.save_pretrained(folder)
    return torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()


def loader(folder: str, name: str, hf_config: Mapping[str, Any]) -> Any:
    """A weight loader of the Hugging Face folder `folder/name`."""
    from nemo_ext.convert.load import load_weights
    from nemo_ext.convert.sources import HuggingFaceWeights
    from nemo_ext.models.family import family_of

    rules = family_of(hf_config).build_mapping(hf_config)
    return lambda model: load_weights(model, rules, HuggingFaceWeights(Path(folder, name), rules))


def wrap(model: Any) -> Any:
    """As NeMo does before training: default marks, then the data parallel wrapper that holds the gradients."""
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.tensor_parallel.layers import set_defaults_if_not_set_tensor_model_parallel_attributes

    for parameter in model.parameters():
        set_defaults_if_not_set_tensor_model_parallel_attributes(parameter)
    return DistributedDataParallel(model.config, DistributedDataParallelConfig(), model)


def gradient_errors(model: Any, expected: Any) -> dict[str, float]:
    """Largest difference in each tensor, relative to its largest gradient."""
    errors = {}
    for (name, parameter), (_, wanted) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        errors[name] = ((parameter.main_grad - wanted).abs().max() / wanted.abs().max()).item()
    return errors
