"""Safetensors in and out: slices are right, bytes are whole, and every damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.reader import INDEX_FILE, SINGLE_FILE, SafetensorsReader, check_tensors
from nemo_ext.convert.writer import SafetensorsWriter, plan_shards, shard_index

SHAPES = {"a": (5, 3), "b": (7,), "c": (4, 2)}


def values(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def write_sharded(folder: Path, max_shard_bytes: int = 70) -> dict[str, torch.Tensor]:
    tensors = values()
    shards = plan_shards(SHAPES, 4, max_shard_bytes)
    for shard in shards:
        with SafetensorsWriter(folder / shard.file, shard.shapes, torch.float32) as writer:
            for name in shard.shapes:
                for row in reversed(range(len(tensors[name]))):  # any order will do
                    writer.write(name, row, tensors[name][row : row + 1])
            writer.finish()
    (folder / INDEX_FILE).write_text(json.dumps(shard_index(shards, 4)))
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_written_file_is_read_by_the_safetensors_library(tmp_path, dtype):
    tensors = values(dtype)
    with SafetensorsWriter(tmp_path / SINGLE_FILE, SHAPES, dtype) as writer:
        for name, tensor in tensors.items():
            writer.write(name, 0, tensor)
        writer.finish()
    loaded = load_file(tmp_path / SINGLE_FILE)
    assert set(loaded) == set(tensors)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_shards_keep_to_their_size_and_the_index_finds_every_tensor(tmp_path):
    tensors = write_sharded(tmp_path)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert sorted(set(index["weight_map"].values())) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    reader = SafetensorsReader(tmp_path)
    assert all(torch.equal(reader.read(name), tensors[name]) for name in tensors)


def test_slices_are_those_of_the_whole_tensor(tmp_path):
    tensors = write_sharded(tmp_path)
    reader = SafetensorsReader(tmp_path)
    assert torch.equal(reader.read("a", (1, 4), (1, 2)), tensors["a"][1:4, 1:2])
    assert torch.equal(reader.read("b", (2, 7)), tensors["b"][2:7])
    assert torch.equal(reader.read("c", (0, 0)), tensors["c"][0:0])


def test_single_file_can_be_given_itself(tmp_path):
    save_file(values(), tmp_path / "weights.safetensors")
    assert set(SafetensorsReader(tmp_path / "weights.safetensors").tensors) == set(SHAPES)


def test_missing_rows_are_refused(tmp_path):
    with SafetensorsWriter(tmp_path / SINGLE_FILE, SHAPES, torch.float32) as writer:
        writer.write("a", 0, values()["a"])
        writer.write("b", 0, values()["b"][:5])
        with pytest.raises(ConversionError, match=r"b \(2 of 7 rows\), c \(4 of 4 rows\)"):
            writer.finish()


def test_rows_that_come_twice_are_refused(tmp_path):
    with SafetensorsWriter(tmp_path / SINGLE_FILE, SHAPES, torch.float32) as writer:
        writer.write("b", 0, values()["b"][:5])
        with pytest.raises(ConversionError, match="came twice"):
            writer.write("b", 4, values()["b"][4:])


def truncate(folder: Path) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def overwrite_header(folder: Path) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:8] + b"\xff" * 40 + file.read_bytes()[48:])


def remove_shard(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def empty_shard(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"")


def misplace(folder: Path) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    index["weight_map"]["c"] = index["weight_map"]["a"]
    (folder / INDEX_FILE).write_text(json.dumps(index))


def remove_from_index(folder: Path) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    del index["weight_map"]["b"]
    (folder / INDEX_FILE).write_text(json.dumps(index))


def break_index(folder: Path) -> None:
    (folder / INDEX_FILE).write_text("{")


def remove_index(folder: Path) -> None:
    (folder / INDEX_FILE).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"model-00001-of-00002.safetensors is damaged or incomplete: it has \d+ bytes where the header promises \d+"),
        (overwrite_header, "model-00002-of-00002.safetensors is damaged"),
        (remove_shard, "model-00002-of-00002.safetensors does not exist"),
        (empty_shard, "model-00002-of-00002.safetensors is damaged or incomplete: it has 0 bytes"),
        (misplace, "places 'c' in model-00001-of-00002.safetensors, which does not hold it"),
        (remove_from_index, "holds 'b', which model.safetensors.index.json does not place there"),
        (break_index, "not a safetensors index"),
        (remove_index, "neither model.safetensors nor model.safetensors.index.json"),
    ],
)
def test_damage_is_named_with_its_file(tmp_path, damage, message):
    write_sharded(tmp_path)
    damage(tmp_path)
    with pytest.raises(ConversionError, match=message):
        SafetensorsReader(tmp_path)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({**SHAPES, "d": (2, 2)}, r"missing 'd' \[2, 2\]"),
        ({"a": (5, 3), "b": (7,)}, r"unknown 'c' \[4, 2\] in model-00002-of-00002.safetensors"),
        ({**SHAPES, "b": (8,)}, r"'b' in model-0000.-of-00002.safetensors has shape \[7\], expected \[8\]"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(tmp_path, expected, message):
    write_sharded(tmp_path)
    with pytest.raises(ConversionError, match=message):
        check_tensors(SafetensorsReader(tmp_path), expected)


def test_integer_weights_are_refused(tmp_path):
    save_file({"a": torch.zeros(2, dtype=torch.int8)}, tmp_path / SINGLE_FILE)
    with pytest.raises(ConversionError, match=r"'a' in model.safetensors is I8, expected one of F64"):
        check_tensors(SafetensorsReader(tmp_path), {"a": (2,)})


def test_quantised_weights_are_called_what_they_are(tmp_path):
    save_file({"a": torch.zeros(4, 2).to(torch.float8_e4m3fn), "b": torch.ones(2)}, tmp_path / SINGLE_FILE)
    with pytest.raises(
        ConversionError, match=r"'a' in model.safetensors is F8_E4M3.*quantised: their scales are not applied.*bf16 version"
    ):
        check_tensors(SafetensorsReader(tmp_path), {"a": (4, 2), "b": (2,)})


def test_a_dtype_that_the_format_gets_later_is_no_damage(tmp_path):
    header = json.dumps({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
    (tmp_path / SINGLE_FILE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ConversionError, match=r"'a' in model.safetensors is F4, expected one of"):
        check_tensors(SafetensorsReader(tmp_path), {"a": (4,)})


def test_unknown_names_get_the_nearest_one(tmp_path):
    save_file({"embed_tokens.weight": torch.zeros(2)}, tmp_path / SINGLE_FILE)
    with pytest.raises(ConversionError, match=r"Did you mean 'embed_tokens.weight'"):
        SafetensorsReader(tmp_path).read("embed_token.weight")
