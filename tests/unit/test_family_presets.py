"""What holds for the presets of every model family: they can be expressed, their sizes are as promised, their fields can be changed."""

from __future__ import annotations

import ast
import importlib.util
from math import prod
from pathlib import Path

import pytest

from nemo_ext.convert.rules import Table, layer_count
from nemo_ext.models.family import FAMILIES, family_of

PRESETS = [(name, preset) for name in ("bert", "gemma3", "gpt2", "llama", "modernbert", "qwen3") for preset in FAMILIES.get(name).presets]
# Our own are named after their size, the published ones have what their model cards at huggingface.co say.
PARAMETERS = {
    ("llama", "10m"): 10e6,
    ("llama", "30m"): 30e6,
    ("llama", "124m"): 124e6,
    ("llama", "stochastok-47m"): 47e6,
    ("gemma3", "270m"): 0.268e9,
    ("gemma3", "1b"): 1.000e9,
    ("gemma3", "4b"): 3.880e9,
    ("gemma3", "12b"): 11.77e9,
    ("gemma3", "27b"): 27.01e9,
    ("qwen3", "0.6b"): 0.596e9,
    ("qwen3", "1.7b"): 1.72e9,
    ("qwen3", "4b"): 4.02e9,
    ("qwen3", "8b"): 8.19e9,
    ("qwen3", "14b"): 14.77e9,
    ("qwen3", "32b"): 32.76e9,
    ("gpt2", "gpt2"): 124e6,
    ("gpt2", "medium"): 355e6,
    ("gpt2", "large"): 774e6,
    ("gpt2", "xl"): 1558e6,
    ("bert", "base"): 109.5e6,
    ("bert", "large"): 335.2e6,
    ("modernbert", "base"): 149_655_232,
    ("modernbert", "large"): 395_881_664,
}


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_every_preset_can_be_expressed_and_is_read_back_as_its_family(family: str, preset: str):
    config = FAMILIES.get(family).hf_config(preset, {})
    FAMILIES.get(family).check(config)
    assert family_of(config) is FAMILIES.get(family)


@pytest.mark.parametrize(("family", "preset"), PARAMETERS)
def test_a_preset_has_as_many_parameters_as_it_promises(family: str, preset: str):
    config = FAMILIES.get(family).hf_config(preset, {})
    table = Table(FAMILIES.get(family).build_mapping(config), layer_count(config))
    assert sum(map(prod, table.hf_shapes.values())) == pytest.approx(PARAMETERS[family, preset], rel=0.01)


@pytest.mark.parametrize("family", sorted({name for name, _ in PRESETS}))
def test_every_field_of_transformers_can_be_overridden(family: str):
    ours = FAMILIES.get(family)
    missing = _transformers_fields(family) - set(next(iter(ours.presets.values()))) - ours.free_fields
    assert not missing, f"fields of transformers' config that model.overrides does not know: {missing}"


def _transformers_fields(model_type: str) -> set[str]:
    """Parameter names of a config class, read from its source: importing transformers takes seconds."""
    folder = importlib.util.find_spec("transformers").submodule_search_locations[0]  # type: ignore[union-attr, index]
    tree = ast.parse(Path(folder, f"models/{model_type}/configuration_{model_type}.py").read_text())
    constructor = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return {argument.arg for argument in constructor.args.args} - {"self"}
