"""transformers 5 reads what we export, and computes the same. Not among the other tests: `make test-transformers5` runs it.

transformers 5 stands in a folder of its own, named by the variable TRANSFORMERS5, which only the reading process sees. Whoever
adds a family adds its tiny config to EXPORTS; an architecture that ends in ForMaskedLM is read as an encoder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.convert.stream import write_hf_weights
from nemo_ext.models.family import family_of
from tests.support import read_exports
from tests.support.tiny_models import BERT, GEMMA3, GPT2, LLAMA, MODERNBERT, QWEN2, QWEN3, write_random_hf_model

EXPORTS: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "gemma3": GEMMA3,
    "gemma3_untied_one_key_value_head": {**GEMMA3, "num_key_value_heads": 1, "tie_word_embeddings": False, "rope_scaling": None},
    "gpt2": GPT2,
    "gpt2_untied": {**GPT2, "tie_word_embeddings": False},
    "llama": {**LLAMA, "hidden_size": 84},  # transformers 5 wants a multiple of the heads, whatever head_dim says
    "modernbert": MODERNBERT,
    "qwen2": QWEN2,
    "qwen2_tied": {**QWEN2, "tie_word_embeddings": True, "num_hidden_layers": 2},
    "qwen3": QWEN3,
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    for name, config in EXPORTS.items():
        source = tmp_path_factory.mktemp(name)
        write_random_hf_model(source, config)
        rules = family_of(config).build_mapping(config)
        write_hf_weights(config, rules, HuggingFaceWeights(source, rules), folder / name, "bf16" if name == "qwen3" else "fp32")
    return folder


@pytest.fixture(scope="module")
def read_by_5(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    layer, out = os.environ.get("TRANSFORMERS5"), tmp_path_factory.mktemp("logits") / "logits.pt"
    assert layer, "TRANSFORMERS5 is not set. Run: make test-transformers5"
    command = [sys.executable, read_exports.__file__, str(exports), str(out)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": layer}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(out)


@pytest.mark.parametrize("name", EXPORTS)
def test_transformers_5_computes_what_transformers_4_does(name: str, exports: Path, read_by_5: dict[str, Any]):
    theirs, ours = read_by_5[name], read_exports.computed(exports / name)
    assert theirs["version"].startswith("5.") and ours["version"].startswith("4.")
    assert theirs["class"] == ours["class"] == EXPORTS[name]["architectures"][0]
    assert theirs["problems"] == ours["problems"] == []
    assert theirs["dtype"] == ours["dtype"]
    assert (theirs["logits"] - ours["logits"]).abs().max() < 1e-5
    if "continued" in ours:
        assert torch.equal(theirs["continued"], ours["continued"])


def test_another_rotary_base_would_be_noticed(exports: Path, read_by_5: dict[str, Any], tmp_path: Path):
    changed = {**EXPORTS["llama"], "rope_theta": 2 * LLAMA["rope_theta"]}
    rules = family_of(changed).build_mapping(changed)
    write_hf_weights(changed, rules, HuggingFaceWeights(exports / "llama", rules), tmp_path / "llama")
    assert (read_exports.computed(tmp_path / "llama")["logits"] - read_by_5["llama"]["logits"]).abs().max() > 1e-3
