"""Weight sources and fingerprints: the same numbers whoever asks for which piece, and a report of whatever does not fit."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nemo_ext.common.errors import ConversionError, OutputExistsError
from nemo_ext.convert.fingerprint import _odd_numbers, fingerprint_of
from nemo_ext.convert.load import source_fingerprint
from nemo_ext.convert.rules import ONES, OUTPUT, ZEROS, Entry, Rule, Segment, Table, concatenated, one, qkv, vocabulary
from nemo_ext.convert.seeded import BLOCK_ELEMENTS, SeededWeights
from nemo_ext.convert.sources import HuggingFaceWeights, row_steps
from nemo_ext.convert.staging import staged_folder
from nemo_ext.convert.stream import require_finite, stream_weights, write_hf_weights

LAYERS = 2
NAMES = ("l.{i}.q", "l.{i}.k", "l.{i}.v")
RULES = [
    vocabulary("embedding.weight", "model.embed_tokens.weight", 11, 16, (6,)),
    qkv("decoder.layers.{i}.qkv.weight", NAMES, heads=4, groups=2, head_dim=3, tail=(6,)),
    concatenated("decoder.layers.{i}.fc1.weight", ("l.{i}.gate", "l.{i}.up"), 5, (6,)),
    one("decoder.layers.{i}.fc2.weight", "l.{i}.down", (6, 5), initial=OUTPUT),
    one("decoder.layers.{i}.conv.weight", "l.{i}.conv", (7, 6), transposed=True),
    qkv("decoder.layers.{i}.c_attn.weight", ("l.{i}.c",) * 3, heads=2, groups=2, head_dim=3, tail=(6,), starts=(0, 6, 12), transposed=True),
    one("decoder.layers.{i}.bias", "l.{i}.bias", (9,), initial=ZEROS),
    one("norm.weight", "norm", (6,), initial=ONES),
]


def seeded(seed: int = 1, std: float = 0.02, rules: list[Rule] = RULES) -> SeededWeights:
    return SeededWeights(seed, std, rules, LAYERS)


def write_hf(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in Table(RULES, LAYERS).hf_shapes.items()}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hugging_face_tensors_come_back_bit_exact(tmp_path, dtype):
    tensors = write_hf(tmp_path / "in", dtype)
    source = HuggingFaceWeights(tmp_path / "in", RULES, LAYERS)
    with staged_folder(tmp_path / "out", {}) as staged:
        report = stream_weights(Table(RULES, LAYERS), source, staged, dtype)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert set(written) == set(tensors)
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
    assert report.fingerprint == source_fingerprint(RULES, LAYERS, HuggingFaceWeights(tmp_path / "out", RULES, LAYERS))
    assert report.parameters == sum(tensor.numel() for tensor in tensors.values())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_seeded_pieces_are_those_of_the_whole(data):
    # Rows and columns around the border of a block, because that is where a shard could go wrong.
    width = 2**14
    step = BLOCK_ELEMENTS // width
    rule = vocabulary("embedding.weight", "e", 3 * step + 1, 4 * step, (width,))
    source = SeededWeights(7, 0.02, [rule], 1)
    whole = torch.empty(rule.shape)
    source.fill(whole, rule, None, 0)
    start = data.draw(st.integers(0, rule.rows - 1))
    stop = data.draw(st.integers(start + 1, rule.rows))
    left = data.draw(st.integers(0, width - 1))
    right = data.draw(st.integers(left + 1, width))
    piece = torch.empty(stop - start, right - left)
    source.fill(piece, rule, None, start, left)
    assert torch.equal(piece, whole[start:stop, left:right])


def test_seeded_weights_start_as_documented():
    rules = [
        one("a.{i}.weight", "a.{i}", (400, 500)),
        one("b.{i}.weight", "b.{i}", (400, 500), initial=OUTPUT),
        one("n", "n", (5,), initial=ONES),
        one("z", "z", (5,), initial=ZEROS),
        vocabulary("e", "e", 3, 128, (4,)),
    ]
    source, filled = seeded(rules=rules), {}
    for rule, layer in Table(rules, LAYERS).entries():
        filled[Entry(rule, layer).name] = torch.full(rule.shape, torch.nan)
        source.fill(filled[Entry(rule, layer).name], rule, layer, 0)
    # 200,000 draws: the standard error of the standard deviation is 0.16 %.
    assert filled["a.0.weight"].std().item() == pytest.approx(0.02, rel=0.01)
    assert filled["b.1.weight"].std().item() == pytest.approx(0.02 / sqrt(2 * LAYERS), rel=0.01)
    assert abs(filled["a.0.weight"].mean().item()) < 0.02 / sqrt(200_000) * 5
    assert filled["n"].eq(1).all()
    assert filled["z"].eq(0).all()
    assert filled["e"][3:].eq(0).all()
    assert filled["e"][:3].ne(0).all()
    assert not torch.equal(filled["a.0.weight"], filled["a.1.weight"])


def test_seeded_weights_depend_on_the_seed_only():
    assert source_fingerprint(RULES, LAYERS, seeded(1)) == source_fingerprint(RULES, LAYERS, seeded(1))
    assert source_fingerprint(RULES, LAYERS, seeded(1)) != source_fingerprint(RULES, LAYERS, seeded(2))


def test_seeded_numbers_have_not_changed():
    # A recorded run must be repeatable: this digest stands for the numbers of NumPy's Philox and ziggurat.
    assert source_fingerprint(RULES, LAYERS, seeded(1)) == "843d82bc5a9546cb"


@given(st.integers(1, 12), st.integers(1, 9), st.data())
def test_fingerprint_adds_up_over_any_split(rows, columns, data):
    rule = one("w", "w", (rows, columns))
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 100 + columns))
    cut_row, cut_column = data.draw(st.integers(0, rows)), data.draw(st.integers(0, columns))
    parts = [
        fingerprint_of(values[top:bottom, left:right], Entry(rule, None), top, left)
        for top, bottom in ((0, cut_row), (cut_row, rows))
        for left, right in ((0, cut_column), (cut_column, columns))
    ]
    assert sum(parts) % 2**64 == fingerprint_of(values, Entry(rule, None), 0)


def test_fingerprint_tells_values_places_and_names_apart():
    values = torch.arange(6.0).reshape(2, 3)
    rule, other = one("w", "w", (2, 3)), one("v", "v", (2, 3))
    figures = {
        fingerprint_of(values, Entry(rule, None), 0),
        fingerprint_of(values.flip(0), Entry(rule, None), 0),
        fingerprint_of(values.flip(1), Entry(rule, None), 0),
        fingerprint_of(values + 2**-20, Entry(rule, None), 0),
        fingerprint_of(values, Entry(other, None), 0),
    }
    assert len(figures) == 5


def test_fingerprint_leaves_padding_out_and_counts_bf16_as_its_fp32_value():
    rule = vocabulary("e", "e", 3, 8, (2,))
    values = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = fingerprint_of(values.float(), Entry(rule, None), 0)
    values[3:] = 9
    assert fingerprint_of(values, Entry(rule, None), 0) == expected


@given(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**32))
def test_fingerprint_is_the_sum_that_its_text_says(dtype, rows, columns, seed):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    words = values.float().view(torch.int32).tolist()
    row_factors, column_factors = (_odd_numbers(f"w/{kind}", 0, count).tolist() for kind, count in (("row", rows), ("column", columns)))
    expected = sum(
        (word + (word >> 16)) * row_factor * column_factor
        for row, row_factor in zip(words, row_factors, strict=True)
        for word, column_factor in zip(row, column_factors, strict=True)
    )
    assert fingerprint_of(values, Entry(one("w", "w", (rows, columns)), None), 0) == expected % 2**64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_is_found_and_the_largest_finite_ones_pass(dtype, value):
    values = torch.zeros(3, 2**17 + 1, dtype=dtype)
    values[0, 0], values[2, 0] = torch.finfo(dtype).max, torch.finfo(dtype).min
    require_finite(values, "w", "source")
    values[2, 2**17] = value
    with pytest.raises(ConversionError, match="w of source holds NaN or infinity"):
        require_finite(values, "w", "source")


def test_pieces_cover_a_tensor_once_in_order():
    pieces = list(row_steps((1000, 64), piece_bytes=4 * 64 * 300))
    assert pieces == [(0, 300), (300, 600), (600, 900), (900, 1000)]


@pytest.mark.parametrize("same", [True, False])
def test_lm_head_beside_tied_embeddings_is_accepted_only_if_it_is_the_same(tmp_path, same):
    tensors = write_hf(tmp_path)
    head = tensors["model.embed_tokens.weight"].clone()
    head[4, 2] += 0 if same else 1
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "model.safetensors")
    if same:
        assert HuggingFaceWeights(tmp_path, RULES, LAYERS).table.num_layers == LAYERS
    else:
        with pytest.raises(ConversionError, match=r"ties lm_head.weight"):
            HuggingFaceWeights(tmp_path, RULES, LAYERS)


def test_unknown_tensor_of_a_hugging_face_folder_is_refused_and_a_derived_buffer_is_not(tmp_path):
    tensors = write_hf(tmp_path)
    save_file({**tensors, "l.0.rotary_emb.inv_freq": torch.ones(2)}, tmp_path / "model.safetensors")
    HuggingFaceWeights(tmp_path, RULES, LAYERS)
    save_file({**tensors, "score.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match=r"unknown 'score.weight' \[2\]"):
        HuggingFaceWeights(tmp_path, RULES, LAYERS)


def test_layers_are_counted_by_the_folders_config(tmp_path):
    write_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": LAYERS + 1}))
    with pytest.raises(ConversionError, match=r"missing 'l.2.q' \[12, 6\]"):
        HuggingFaceWeights(tmp_path, RULES)


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    tensors = write_hf(tmp_path)
    tensors["l.1.down"][2, 3] = torch.inf
    save_file(tensors, tmp_path / "model.safetensors")
    source = HuggingFaceWeights(tmp_path, RULES, LAYERS)
    with pytest.raises(ConversionError, match=r"l.1.down .* NaN or infinity"), staged_folder(tmp_path / "out", {}) as staged:
        stream_weights(Table(RULES, LAYERS), source, staged, torch.float32)
    assert not list(tmp_path.glob("*out*"))


def test_untrained_model_is_written_whole_or_not_at_all(tmp_path):
    config = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": LAYERS,
        "vocab_size": 11,
        "eos_token_id": 3,
    }
    report = write_hf_weights(config, RULES, seeded(), tmp_path / "out", dtype="bf16")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "config.json", "generation_config.json"}
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {**config, "torch_dtype": "bfloat16"}
    assert report.fingerprint == source_fingerprint(RULES, LAYERS, HuggingFaceWeights(tmp_path / "out", RULES, LAYERS))
    with pytest.raises(OutputExistsError):
        write_hf_weights(config, RULES, seeded(), tmp_path / "out")
    holes = [Rule("w", (Segment(None, 0, 1), Segment("x", 0, 2)))]
    with pytest.raises(AssertionError):
        write_hf_weights(config, holes, seeded(), tmp_path / "refused")  # a source of another table
    with pytest.raises(ConversionError, match="no `architectures`"):
        write_hf_weights({**config, "architectures": None}, RULES, seeded(), tmp_path / "refused")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
