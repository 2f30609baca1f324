"""Mapping tables: every row has one place, the inverse is exact, and wrong tables are refused."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.rules import Rule, Segment, Table, concatenated, layer_count, one, qkv, vocabulary
from nemo_ext.models.family import padded_vocab_size
from nemo_ext.models.qwen2.mapping import mapping
from nemo_ext.models.qwen2.presets import PRESETS

configs = st.builds(
    lambda groups, per_group, head_dim, inner, layers, vocab, tied: {
        "hidden_size": groups * per_group * head_dim,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": groups * per_group,
        "num_key_value_heads": groups,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    },
    *(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 3), st.integers(1, 300)),
    st.booleans(),
)


@given(configs)
def test_every_row_has_exactly_one_place_and_comes_back_to_it(hf_config):
    table = Table(mapping(hf_config, padded_vocab_size(hf_config["vocab_size"])), hf_config["num_hidden_layers"])
    numbers = {name: numpy.arange(shape[0]) for name, shape in table.hf_shapes.items()}
    back = {name: numpy.full(shape[0], -1) for name, shape in table.hf_shapes.items()}
    for rule, layer in table.entries():
        megatron = numpy.full(rule.rows, -1)
        for name, hf_row, row, rows in rule.blocks(0, rule.rows, layer):
            if name is not None:
                megatron[row : row + rows] = numbers[name][hf_row : hf_row + rows]
        for name, hf_row, row, rows in rule.blocks(0, rule.rows, layer):
            if name is not None:
                assert (back[name][hf_row : hf_row + rows] == -1).all()
                back[name][hf_row : hf_row + rows] = megatron[row : row + rows]
    for name, expected in numbers.items():
        assert (back[name] == expected).all()


@given(configs, st.data())
def test_blocks_of_adjacent_ranges_join_to_the_blocks_of_the_whole(hf_config, data):
    rule = qkv("k", ("q", "k", "v"), heads=hf_config["num_attention_heads"], groups=hf_config["num_key_value_heads"], head_dim=3)
    cut = data.draw(st.integers(0, rule.rows))

    def places(start: int, stop: int) -> list[tuple[str | None, int]]:
        return [(block.name, block.hf_row + step) for block in rule.blocks(start, stop) for step in range(block.rows)]

    assert places(0, cut) + places(cut, rule.rows) == places(0, rule.rows)


def test_fused_qkv_interleaves_by_group():
    rule = qkv("k", ("q", "k", "v"), heads=4, groups=2, head_dim=1)
    assert [(segment.name, segment.start, segment.rows) for segment in rule.segments] == [
        ("q", 0, 2), ("k", 0, 1), ("v", 0, 1), ("q", 2, 2), ("k", 1, 1), ("v", 1, 1),
    ]  # fmt: skip


def test_padding_is_content_of_no_range():
    rule = vocabulary("e", "embed", 203, 256, (4,))
    assert rule.content(0, 256) == [(0, 203)]
    assert rule.content(128, 256) == [(0, 75)]
    assert rule.content(203, 256) == []
    assert concatenated("g", ("gate", "up"), 5).content(3, 8) == [(0, 5)]


@pytest.mark.parametrize(
    ("preset", "billions"),
    [("0.5b", 0.494), ("1.5b", 1.544), ("7b", 7.616), ("14b", 14.770), ("32b", 32.764), ("72b", 72.706)],
)
def test_table_has_the_published_number_of_parameters(preset, billions):
    # Model cards of Qwen2.5: 0.49B, 1.54B, 7.61B, 14.7B, 32.5B, 72.7B; the digits after these are of the safetensors files.
    hf_config = PRESETS[preset]
    shapes = Table(mapping(hf_config, padded_vocab_size(hf_config["vocab_size"])), hf_config["num_hidden_layers"]).hf_shapes
    assert round(sum(int(numpy.prod(shape)) for shape in shapes.values()) / 1e9, 3) == billions


def test_keys_are_found_with_stacked_and_with_separate_layers():
    hf_config = PRESETS["tiny"]
    table = Table(mapping(hf_config, 4096), hf_config["num_hidden_layers"])
    stacked, layer = table.find("decoder.layers.mlp.linear_fc2.weight")
    assert layer is None
    assert table.find("decoder.layers.3.mlp.linear_fc2.weight") == (stacked, 3)
    with pytest.raises(ConversionError, match=r"linear_fc9.*Did you mean"):
        table.find("decoder.layers.3.mlp.linear_fc9.weight")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([one("a", "x", (4,)), one("a", "y", (4,))], "two rules for one"),
        ([one("a", "x", (4,)), one("b", "x", (4,))], "row 0 of 'x' not exactly once"),
        ([Rule("a", (Segment("x", 0, 2), Segment("x", 3, 1)))], "row 2 of 'x' not exactly once"),
        ([Rule("a", (Segment("x", 0, 2),), (3,)), Rule("b", (Segment("x", 2, 2),), (4,))], "two different shapes"),
    ],
)
def test_wrong_tables_are_refused(rules, message):
    with pytest.raises(ConversionError, match=message):
        Table(rules, 1)


def test_rules_with_a_layer_filter_skip_those_layers():
    rule = Rule("decoder.layers.{i}.norm.weight", (Segment("layers.{i}.norm", 0, 2),), layers=lambda layer: layer > 0)
    assert list(Table([rule], 3).hf_shapes) == ["layers.1.norm", "layers.2.norm"]


def test_layer_count_reads_both_names_and_refuses_neither():
    assert layer_count({"num_hidden_layers": 3}) == layer_count({"n_layer": 3}) == 3
    with pytest.raises(ConversionError, match="num_hidden_layers"):
        layer_count({})
