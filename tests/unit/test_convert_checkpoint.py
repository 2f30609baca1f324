"""Reading a torch_dist checkpoint without a model: stacked or apart, in pieces, and only if everything fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from nemo_ext.common.errors import CheckpointError, ConversionError
from nemo_ext.convert.checkpoint import CheckpointWeights
from nemo_ext.convert.rules import Rule, one, vocabulary

LAYERS = 3
RULES = [
    vocabulary("embedding.weight", "e", 5, 8, (4,)),
    one("decoder.layers.{i}.fc.weight", "l.{i}.fc", (6, 4)),
    one("decoder.layers.{i}.bias", "l.{i}.b", (6,)),
]
FC = RULES[1]


def stacked(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = {"embedding.weight": (8, 4), "decoder.layers.fc.weight": (LAYERS, 6, 4), "decoder.layers.bias": (LAYERS, 6)}
    return {f"module.{key}": torch.randn(shape, generator=generator).to(dtype) for key, shape in shapes.items()}


def apart() -> dict[str, torch.Tensor]:
    tensors = {}
    for key, value in stacked().items():
        head, layers, tail = key.partition(".layers.")
        tensors.update({f"{head}.layers.{i}.{tail}": value[i] for i in range(LAYERS)} if layers else {key: value})
    return tensors


def save(folder: Path, tensors: dict[str, torch.Tensor], **more: object) -> Path:
    dcp.save({**tensors, **more}, checkpoint_id=folder, no_dist=True)
    return folder


def read(
    source: CheckpointWeights, rule: Rule, layer: int | None, start: int, stop: int, left: int = 0, right: int | None = None
) -> torch.Tensor:
    values = torch.full((stop - start, *((right or rule.tail[0]) - left,)) if rule.tail else (stop - start,), torch.nan)
    source.fill(values, rule, layer, start, left)
    return values


@pytest.mark.parametrize("layout", [stacked, apart])
def test_pieces_are_those_of_the_stored_tensors(tmp_path, layout):
    source = CheckpointWeights(save(tmp_path, layout()), RULES, LAYERS)
    expected = stacked()
    assert torch.equal(read(source, FC, 1, 2, 5, 1, 3), expected["module.decoder.layers.fc.weight"][1, 2:5, 1:3])
    assert torch.equal(read(source, RULES[2], 2, 1, 6), expected["module.decoder.layers.bias"][2, 1:6])
    assert torch.equal(read(source, RULES[0], None, 0, 8), expected["module.embedding.weight"])


def test_everything_that_is_no_weight_is_left_out_and_counted(tmp_path):
    others = {"optimizer.state.exp_avg.module.embedding.weight": torch.zeros(3), "rng_state/shard_0": torch.zeros(2)}
    source = CheckpointWeights(
        save(tmp_path, stacked(), **others, **{"module.decoder.layers.fc._extra_state/shard_0_3": "x"}), RULES, LAYERS
    )
    assert source.excluded == {"optimizer": 1, "rng_state": 1, "_extra_state": 1}
    assert source.stored_dtype() == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module.surprise.weight": torch.zeros(3)}, "'surprise.weight' is not in the mapping table"),
        ({"module.embedding.weight": torch.zeros(9, 4)}, r"'embedding.weight' has shape \[9, 4\], expected \[8, 4\]"),
        (
            {"module.decoder.layers.fc.weight": torch.zeros(4, 6, 4)},
            r"'decoder.layers.fc.weight' has shape \[4, 6, 4\], expected \[3, 6, 4\]",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path, change, message):
    save(tmp_path, {**stacked(), **change})
    with pytest.raises(ConversionError, match=message):
        CheckpointWeights(tmp_path, RULES, LAYERS)


def test_missing_and_surplus_tensors_are_named(tmp_path):
    tensors = stacked()
    del tensors["module.decoder.layers.bias"]
    with pytest.raises(ConversionError, match=r"missing 'decoder.layers.bias' \[3, 6\]"):
        CheckpointWeights(save(tmp_path / "short", tensors), RULES, LAYERS)
    with pytest.raises(ConversionError, match=r"unused 'decoder.layers.2.fc.weight'"):
        CheckpointWeights(save(tmp_path / "long", apart()), RULES, LAYERS - 1)


def test_several_dtypes_need_a_decision(tmp_path):
    tensors = stacked()
    tensors["module.embedding.weight"] = tensors["module.embedding.weight"].bfloat16()
    source = CheckpointWeights(save(tmp_path, tensors), RULES, LAYERS)
    with pytest.raises(ConversionError, match=r"torch.bfloat16 \(1 tensors\).*--dtype"):
        source.stored_dtype()


def test_damaged_files_are_named(tmp_path):
    source = CheckpointWeights(save(tmp_path, stacked()), RULES, LAYERS)
    for file in tmp_path.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"'decoder.layers.fc.weight' cannot be read"):
        read(source, FC, 0, 0, 6)
    for file in tmp_path.glob("*.distcp"):
        file.unlink()
    with pytest.raises(CheckpointError, match="missing or damaged"):
        read(source, FC, 0, 0, 6)


def test_folders_that_are_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no .metadata"):
        CheckpointWeights(tmp_path, RULES, LAYERS)
    (tmp_path / ".metadata").write_bytes(b"\x80\x04K")
    with pytest.raises(CheckpointError, match="cannot be read"):
        CheckpointWeights(tmp_path, RULES, LAYERS)


def test_chunks_that_do_not_cover_a_tensor_are_noticed(tmp_path):
    source = CheckpointWeights(save(tmp_path, stacked()), RULES, LAYERS)
    source._chunks["decoder.layers.fc.weight", 0].clear()
    with pytest.raises(CheckpointError, match="stores 0 of 24 elements"):
        read(source, FC, 0, 0, 6)
