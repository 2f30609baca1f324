"""`sibol slice`: the kept layers, everything around them, and the kind of each layer are those of the source; transformers agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from nemo_ext.common.errors import ConfigError, ConversionError, OutputExistsError
from nemo_ext.common.files import sha256_of_file
from nemo_ext.convert.rules import Rule, Segment, Table
from nemo_ext.convert.slicing import _check_places, choose_layers, slice_layers, sliced_config
from recipes.cli.slice import slice_model
from tests.support.tiny_models import GEMMA3, GPT2, LLAMA, QWEN2, token_batch, write_random_hf_model

GEMMA3_PATTERN = {"model_type": "gemma3_text", "num_hidden_layers": 8, "sliding_window_pattern": 3}
MODERNBERT = {"model_type": "modernbert", "num_hidden_layers": 22}  # every third layer is global unless the config says otherwise


def logits_of_layers(model: Any, layers: list[int], tokens: torch.Tensor) -> torch.Tensor:
    """Logits of a transformers model whose other layers are taken out by hand."""
    decoder, name = (model.transformer, "h") if hasattr(model, "transformer") else (model.model, "layers")
    setattr(decoder, name, torch.nn.ModuleList(getattr(decoder, name)[layer] for layer in layers))
    model.config.num_hidden_layers = len(layers)
    for index, layer in enumerate(getattr(decoder, name)):
        (layer.attn if hasattr(layer, "attn") else layer.self_attn).layer_idx = index
    return model(tokens).logits


@pytest.mark.parametrize(
    ("hf_config", "layers"),
    [(GPT2, [0, 2, 3]), (LLAMA, [1, 3]), (QWEN2, [0, 3, 6]), ({**QWEN2, "tie_word_embeddings": True}, [7]), (GEMMA3, [2, 3])],
    ids=["gpt2", "llama", "qwen2, untied", "qwen2, tied", "gemma3"],
)
def test_a_slice_computes_what_the_source_computes_without_the_other_layers(tmp_path: Path, hf_config: dict[str, Any], layers: list[int]):
    model = write_random_hf_model(tmp_path / "hf", hf_config)
    slice_layers(tmp_path / "hf", tmp_path / "out", layers)
    tokens = token_batch(hf_config)
    sliced = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert torch.equal(sliced(tokens).logits, logits_of_layers(model, layers, tokens))


def run_command(*arguments: str) -> Any:
    application = typer.Typer()
    application.command()(slice_model)
    return CliRunner().invoke(application, list(arguments))


def test_the_command_carries_the_tokenizer_keeps_the_dtype_and_says_where_layers_came_from(tmp_path: Path):
    write_random_hf_model(tmp_path / "hf", GPT2).bfloat16().save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    result = run_command(str(tmp_path / "hf"), str(tmp_path / "out"), "--every", "2")
    assert result.exit_code == 0, result.output
    assert "Kept 2 of 4 layers (0, 2)" in result.stdout
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["n_layer"], config["torch_dtype"], config["n_embd"]) == (2, "bfloat16", 96)
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["kept_layers"] == [0, 2] and record["source"]["num_layers"] == 4
    assert record["source"]["config_sha256"] == sha256_of_file(tmp_path / "hf" / "config.json")
    assert record["weights"]["fingerprint"] in result.stdout
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    with pytest.raises(OutputExistsError):
        slice_layers(tmp_path / "hf", tmp_path / "out", [0])
    slice_layers(tmp_path / "out", tmp_path / "again", [1])
    assert json.loads((tmp_path / "again" / "provenance.json").read_text())["source"]["provenance"]["kept_layers"] == [0, 2]


def test_a_damaged_source_publishes_nothing(tmp_path: Path):
    write_random_hf_model(tmp_path / "hf", GPT2)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(ConversionError, match=r"unknown 'transformer.h.3"):
        slice_layers(tmp_path / "hf", tmp_path / "out", [0, 1])
    assert not (tmp_path / "out").exists()


@given(st.integers(1, 40), st.data())
def test_layers_are_chosen_as_asked(count: int, data: st.DataObject):
    number = data.draw(st.integers(1, count))
    listed = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    assert choose_layers(count, layers=listed) == listed
    assert choose_layers(count, first=number) == list(range(number))
    chosen = choose_layers(count, every=number)
    assert chosen == [layer for layer in range(count) if layer % number == 0]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"layers": [0], "first": 1}, {"layers": []}, {"layers": [0, 0]}, {"layers": [2, 1]}, {"layers": [4]}, {"layers": [-1]}]
    + [{"first": 0}, {"first": 5}, {"every": 0}, {"every": 5}],
)
def test_a_choice_that_makes_no_sense_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"--layers|--first|--every"):
        choose_layers(4, **wrong)


def test_local_and_global_layers_keep_their_kind():
    kept = sliced_config(GEMMA3_PATTERN, [0, 2, 5, 6])
    assert kept["layer_types"] == ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    assert "sliding_window_pattern" not in kept and kept["num_hidden_layers"] == 4
    assert sliced_config(kept, [1, 2])["layer_types"] == ["full_attention"] * 2
    assert "layer_types" not in sliced_config(QWEN2, [0, 1])


@pytest.mark.parametrize(("layers", "period"), [([0, 1, 2, 3], 3), ([0, 3, 6], 1), ([0, 1, 3, 4], 2), ([0, 1, 2], 3), ([0], 1)])
def test_modernberts_period_follows_its_layers(layers: list[int], period: int):
    assert sliced_config(MODERNBERT, layers)["global_attn_every_n_layers"] == period


@pytest.mark.parametrize("layers", [[1, 2], [0, 3, 4], [0, 1, 3, 6]])
def test_kinds_that_no_period_describes_are_refused(layers: list[int]):
    with pytest.raises(ConversionError, match="every n-th layer"):
        sliced_config(MODERNBERT, layers)


def test_a_layer_without_a_tensor_that_its_new_place_has_is_refused():
    rules = [Rule("decoder.layers.{i}.norm", (Segment("l.{i}.norm", 0, 3),), layers=lambda layer: layer > 0)]
    rules.append(Rule("decoder.layers.{i}.bias", (Segment("l.{i}.bias", 0, 3),)))
    _check_places(Table(rules, 4), Table(rules, 2), [0, 3])
    with pytest.raises(ConversionError, match=r"Layer 2 cannot become layer 0.*layers.\{i\}.norm"):
        _check_places(Table(rules, 4), Table(rules, 2), [2, 3])
