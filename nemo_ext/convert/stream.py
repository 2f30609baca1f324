"""From any weight source into Hugging Face safetensors, piece by piece, with each row of the target written exactly once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nemo_ext.common.errors import ConversionError
from nemo_ext.common.files import sha256_of_json, write_json
from nemo_ext.convert.fingerprint import as_text, fingerprint_of
from nemo_ext.convert.hf_folder import write_model_files
from nemo_ext.convert.reader import INDEX_FILE
from nemo_ext.convert.rules import Entry, Rule, Table, layer_count
from nemo_ext.convert.sources import WeightSource, row_steps
from nemo_ext.convert.staging import FileJob, Progress, StagedFolder, staged_folder
from nemo_ext.convert.writer import GIBIBYTE, SafetensorsWriter, Shard, plan_shards, shard_index

if TYPE_CHECKING:
    import torch

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


class _Place(NamedTuple):
    """Rows `row`... of a Megatron tensor are rows (of a transposed tensor: columns) `hf_row`... of a Hugging Face tensor."""

    entry: Entry
    row: int
    hf_row: int
    rows: int


def stream_weights(
    table: Table,
    source: WeightSource,
    staged: StagedFolder,
    dtype: torch.dtype,
    max_shard_bytes: int = 5 * GIBIBYTE,
    workers: int = 1,
    progress: Progress | None = None,
) -> StreamReport:
    """Write all weights of `source` as safetensors into a folder; in memory are one or two pieces for each of `workers`.

    The fingerprint is that of the written values, that is, after rounding to `dtype`. Raises ConversionError unless every row of every
    Hugging Face tensor was written, and every element of every Megatron tensor read, exactly once.
    """
    places = _places(table)
    shards = plan_shards(table.hf_shapes, dtype.itemsize, max_shard_bytes)
    jobs = [FileJob(shard.file, shard.elements() * dtype.itemsize, _shard_writer(shard, places, source, dtype)) for shard in shards]
    records = staged.run(jobs, workers, progress)
    if len(shards) > 1:
        write_json(staged.content / INDEX_FILE, shard_index(shards, dtype.itemsize))
    content = {entry.name: content_elements(entry.rule) for entry in table.entries()}
    require_each_once(content, [record["read"] for record in records], source.name)
    elements = sum(shard.elements() for shard in shards)
    fingerprint = as_text(sum(int(record["fingerprint"], 16) for record in records))
    return StreamReport(len(table.hf_shapes), elements, elements * dtype.itemsize, fingerprint)


def _places(table: Table) -> dict[str, list[_Place]]:
    """Where the rows of each Hugging Face tensor come from."""
    places = defaultdict(list)
    for entry in table.entries():
        for name, hf_row, row, rows in entry.rule.blocks(0, entry.rule.rows, entry.layer):
            if name is not None:
                places[name].append(_Place(entry, row, hf_row, rows))
    return places


def _shard_writer(
    shard: Shard, places: Mapping[str, Sequence[_Place]], source: WeightSource, dtype: torch.dtype
) -> Callable[[Path, Callable[[int], None]], dict[str, Any]]:
    def write(path: Path, report: Callable[[int], None]) -> dict[str, Any]:
        import torch

        fingerprint, read = 0, Counter[str]()
        with SafetensorsWriter(path, shard.shapes, dtype) as writer:
            for name, shape in shard.shapes.items():
                for start, stop in row_steps(shape):
                    values = torch.empty((stop - start, *shape[1:]), dtype=dtype)
                    for place in places[name]:
                        total, elements = _pull(values, start, stop, place, source)
                        fingerprint += total
                        read[place.entry.name] += elements
                    require_finite(values, name, source.name)
                    writer.write(name, start, values)
                    report(values.nbytes)
            writer.finish()
        return {"fingerprint": as_text(fingerprint), "read": {name: count for name, count in read.items() if count}}

    return write


def _pull(values: torch.Tensor, start: int, stop: int, place: _Place, source: WeightSource) -> tuple[int, int]:
    """Fill what `place` gives of rows [start, stop); returns the fingerprint of it and its number of elements."""
    import torch

    (rule, layer), row, hf_row, rows = place
    if rule.transposed:  # rows of the file are columns of Megatron's tensor
        part = torch.empty((rows, stop - start), dtype=values.dtype)
        source.fill(part, rule, layer, row, start)
        values[:, hf_row : hf_row + rows] = part.t()
        return fingerprint_of(part, place.entry, row, start), part.numel()
    first, last = max(start, hf_row), min(stop, hf_row + rows)
    if first >= last:
        return 0, 0
    part = values[first - start : last - start]
    source.fill(part, rule, layer, row + first - hf_row)
    return fingerprint_of(part, place.entry, row + first - hf_row), part.numel()


def content_elements(rule: Rule) -> int:
    """Elements of a Megatron tensor that are no padding."""
    return prod(rule.tail) * sum(segment.rows for segment in rule.segments if segment.name is not None)


def require_finite(values: torch.Tensor, name: str, source: str) -> None:
    """Raise ConversionError for NaN and infinity, whose exponents have all bits set; a part at a time, because the test makes copies."""
    import torch

    bits = torch.int32 if values.dtype == torch.float32 else torch.int16
    infinity = int(torch.tensor(float("inf"), dtype=values.dtype).view(bits))
    magnitudes = (part.view(bits).bitwise_and(torch.iinfo(bits).max).max() for part in values.view(-1).split(2**18))
    if any(int(largest) >= infinity for largest in magnitudes):
        raise ConversionError(
            f"{name} of {source} holds NaN or infinity as {values.dtype}. The weights are damaged, the run that made them diverged, or the "
            "dtype is too narrow for them."
        )


def require_each_once(expected: Mapping[str, int], found: Sequence[Mapping[str, int]], source: str) -> None:
    """Raise ConversionError, listing tensors, unless each tensor's elements were used exactly once. `found`: one mapping per file."""
    used: Counter[str] = Counter()
    for counts in found:
        used.update(counts)
    wrong = [f"{name} ({used[name]} of {count} elements)" for name, count in expected.items() if used[name] != count]
    wrong += [f"{name} (not in the table)" for name in used if name not in expected]
    if wrong:
        raise ConversionError(
            f"{len(wrong)} tensor(s) of {source} were not used exactly once: {', '.join(wrong[:8])}. Nothing was published; the mapping "
            "table is wrong."
        )


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
    plan = {"kind": "weights", "source": source.identity(), "config": sha256_of_json(dict(hf_config)), "dtype": dtype}
    with staged_folder(out_dir, plan, overwrite) as staged:
        report = stream_weights(Table(rules, layer_count(hf_config)), source, staged, torch_dtype(dtype))
        write_model_files(staged.content, hf_config, DTYPES[dtype], model_files_dir)
    return report
