"""From any weight source into Hugging Face safetensors, piece by piece, with each row of the target written exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.common.files import atomic_folder
from nemo_ext.convert.fingerprint import as_text, fingerprint_of
from nemo_ext.convert.hf_folder import write_model_files
from nemo_ext.convert.rules import Entry, Rule, Table, layer_count
from nemo_ext.convert.sources import WeightSource
from nemo_ext.convert.writer import GIBIBYTE, SafetensorsWriter

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]  # (elements done, elements in all)
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # our name -> torch's


@dataclass(frozen=True)
class StreamReport:
    """What was written: the number of `tensors` and `parameters`, their `bytes` and the `fingerprint` of the values."""

    tensors: int
    parameters: int
    bytes: int
    fingerprint: str


def torch_dtype(name: str) -> torch.dtype:
    """Torch's dtype of "fp32", "bf16" or "fp16". Raises ConversionError for another name."""
    import torch

    if name not in DTYPES:
        raise ConversionError(f"Unknown dtype {name!r}. Choose one of: {', '.join(DTYPES)}.")
    return getattr(torch, DTYPES[name])


def stream_weights(
    table: Table,
    source: WeightSource,
    folder: Path,
    dtype: torch.dtype,
    max_shard_bytes: int = 5 * GIBIBYTE,
    progress: Progress | None = None,
) -> StreamReport:
    """Write all weights of `source` as safetensors into `folder`; in memory are one or two pieces.

    The fingerprint is that of the written values, that is, after rounding to `dtype`. Raises ConversionError unless every row of every
    Hugging Face tensor was written exactly once.
    """
    import torch

    elements = sum(prod(entry.rule.shape) for entry in table.entries())
    done = fingerprint = 0
    with SafetensorsWriter(folder, table.hf_shapes, dtype, max_shard_bytes) as writer:
        for entry in table.entries():
            rule, layer = entry
            # A transposed tensor's rows are columns of the file, so it is put together whole.
            for start, stop in [(0, rule.rows)] if rule.transposed else source.pieces(rule, layer):
                values = torch.empty((stop - start, *rule.tail), dtype=dtype)
                source.fill(values, rule, layer, start)
                if not _all_finite(values):
                    raise ConversionError(
                        f"{entry.name} of {source.name} holds NaN or infinity as {dtype}. The run diverged, or the dtype is too narrow."
                    )
                fingerprint += fingerprint_of(values, entry, start)
                _write_piece(writer, table, entry, values, start)
                done += values.numel()
                if progress:
                    progress(done, elements)
        writer.finish()
    parameters = sum(prod(shape) for shape in table.hf_shapes.values())
    return StreamReport(len(table.hf_shapes), parameters, writer.total_bytes, as_text(fingerprint))


def _all_finite(values: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite; a part at a time, because the test makes copies."""
    import torch

    return all(bool(torch.isfinite(part).all()) for part in values.view(-1).split(2**20))


def _write_piece(writer: SafetensorsWriter, table: Table, entry: Entry, values: torch.Tensor, start: int) -> None:
    """Write the rows of one piece to the Hugging Face tensors that they belong to; padding belongs to none."""
    import torch

    rule, layer = entry
    blocks = [block for block in rule.blocks(start, start + values.shape[0], layer) if block.name is not None]
    if not rule.transposed:
        for name, hf_row, row, rows in blocks:
            writer.write(str(name), hf_row, values[row : row + rows])
        return
    whole: dict[str, torch.Tensor] = {}
    written: dict[str, int] = {}
    for name, hf_row, row, rows in blocks:
        target = whole.setdefault(str(name), torch.empty(table.hf_shapes[str(name)], dtype=values.dtype))
        target[:, hf_row : hf_row + rows] = values[row : row + rows].t()
        written[str(name)] = written.get(str(name), 0) + rows
    for name, target in whole.items():
        assert written[name] == target.shape[1], f"{name}: transposed tensors must come from one Megatron tensor"
        writer.write(name, 0, target)


def write_hf_weights(
    hf_config: Mapping[str, Any],
    rules: Sequence[Rule],
    source: WeightSource,
    out_dir: Path | str,
    dtype: str = "fp32",
    model_files_dir: Path | str | None = None,
    overwrite: bool = False,
) -> StreamReport:
    """Write a Hugging Face checkpoint straight from a source, such as the untrained model that a run began with.

    dtype: "fp32", "bf16" or "fp16". model_files_dir: folder whose tokenizer files are copied.
    Raises OutputExistsError when `out_dir` is taken.
    """
    with atomic_folder(out_dir, overwrite) as folder:
        report = stream_weights(Table(rules, layer_count(hf_config)), source, folder, torch_dtype(dtype))
        write_model_files(folder, hf_config, DTYPES[dtype], model_files_dir)
    return report
