"""Write a Megatron `torch_dist` checkpoint from any weight source, piece by piece and without a model.

The format is that of torch.distributed.checkpoint: files of tensors saved one after the other, and `.metadata`, which says where each
box of each tensor lies; Megatron adds `metadata.json` and `common.pt`. Its loaders read it under any tp and pp.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from nemo_ext.common.files import atomic_file, write_json
from nemo_ext.convert.checkpoint import EXTRA_STATE, MODEL_PREFIX
from nemo_ext.convert.distributed_files import METADATA_FILE
from nemo_ext.convert.fingerprint import as_text, fingerprint_of
from nemo_ext.convert.rules import LAYER, Entry, Rule, Table
from nemo_ext.convert.sources import WeightSource, row_steps
from nemo_ext.convert.staging import FileJob, Progress, StagedFolder
from nemo_ext.convert.stream import StreamReport, require_each_once, require_finite

if TYPE_CHECKING:
    import torch

# Source: CheckpointingConfig in megatron/core/dist_checkpointing/core.py (0.15), as its `torch_dist` strategy of version 1 writes it.
MEGATRON_FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}
EXTRA_FILE = "__extra_0.distcp"


class Piece(NamedTuple):
    """Rows [start, stop) of a tensor, and the box of the stored tensor `key` that they become."""

    entry: Entry
    start: int
    stop: int
    key: str
    size: tuple[int, ...]  # of the whole stored tensor
    offsets: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        leading = len(self.size) - len(self.entry.rule.shape)
        return (*(1,) * leading, self.stop - self.start, *self.entry.rule.tail)


def write_weights(
    table: Table,
    source: WeightSource,
    staged: StagedFolder,
    dtype: torch.dtype,
    file_bytes: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> StreamReport:
    """Write all weights into `weights/` of a folder, in files of about `file_bytes`; the report is that of `stream_weights`.

    Raises ConversionError unless every element of every Hugging Face tensor was used exactly once.
    """
    import torch

    files = _files(table, dtype.itemsize, file_bytes)
    names = [f"weights/__{number}_0.distcp" for number in range(len(files))]
    jobs = [
        FileJob(name, sum(prod(piece.shape) for piece in pieces) * dtype.itemsize, _file_writer(pieces, source, dtype))
        for name, pieces in zip(names, files, strict=True)
    ]
    records = staged.run(jobs, workers, progress)
    require_each_once({name: prod(shape) for name, shape in table.hf_shapes.items()}, [record["used"] for record in records], source.name)
    weights = staged.content / "weights"
    stored = [(Path(name).name, record["items"]) for name, record in zip(names, records, strict=True)]
    metadata = _metadata(files, stored, dtype)
    _add_extra_states(metadata, table, weights / EXTRA_FILE)
    with atomic_file(weights / METADATA_FILE, "wb") as handle:
        pickle.dump(metadata, handle)
    with atomic_file(weights / "common.pt", "wb") as handle:
        torch.save({}, handle)
    write_json(weights / "metadata.json", MEGATRON_FORMAT)
    elements = sum(prod(shape) for shape in table.hf_shapes.values())
    fingerprint = as_text(sum(int(record["fingerprint"], 16) for record in records))
    return StreamReport(len(table.hf_shapes), elements, sum(job.size_bytes for job in jobs), fingerprint)


def stored_place(table: Table, rule: Rule, layer: int | None) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Key, size and leading offset of a tensor: as Megatron stores it, its layers stacked unless they have different tensors."""
    if layer is None:
        return rule.key, rule.shape, ()
    if all(other.layers is None for other in table.rules):
        return rule.key.replace(f"{LAYER}.", "", 1), (table.num_layers, *rule.shape), (layer,)
    return Entry(rule, layer).name, rule.shape, ()


def extra_state_keys(table: Table) -> list[str]:
    """The objects that Megatron's linear layers ask for beside their weights, for Transformer Engine's sake.

    Source: `ColumnParallelLinear.get_extra_state` of megatron/core/tensor_parallel/layers.py, and ShardedObject.unique_key.
    """
    keys = {}
    for entry in table.entries():
        module = entry.rule.key.rpartition(".")[0]
        if module.rpartition(".")[2].startswith(("linear_", "output_layer")):
            key, _, leading = stored_place(table, *entry)
            shard = f"shard_{leading[0]}_{table.num_layers}" if leading else "shard_0_1"
            keys[f"{MODEL_PREFIX}{key.rpartition('.')[0]}.{EXTRA_STATE}/{shard}"] = True
    return list(keys)


def _add_extra_states(metadata: Any, table: Table, file: Path) -> None:
    """Store one empty extra state for all layers, without which Megatron's loader would call the checkpoint incomplete."""
    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

    with atomic_file(file, "wb") as handle:
        torch.save([None], handle)
    place = _StorageInfo(file.name, 0, file.stat().st_size)
    for key in extra_state_keys(table):
        metadata.state_dict_metadata[key] = BytesStorageMetadata()
        metadata.storage_data[MetadataIndex(key)] = place


def _files(table: Table, element_bytes: int, file_bytes: int) -> list[list[Piece]]:
    """All pieces in the order of the table, cut into files. Depends on nothing but the arguments."""
    files: list[list[Piece]] = [[]]
    size_bytes = 0
    for piece in _pieces(table):
        piece_bytes = prod(piece.shape) * element_bytes
        if files[-1] and size_bytes + piece_bytes > file_bytes:
            files.append([])
            size_bytes = 0
        files[-1].append(piece)
        size_bytes += piece_bytes
    return files


def _pieces(table: Table) -> Iterator[Piece]:
    for entry in table.entries():
        key, size, leading = stored_place(table, *entry)
        for start, stop in row_steps(entry.rule.shape):
            yield Piece(entry, start, stop, MODEL_PREFIX + key, size, (*leading, start, *(0 for _ in entry.rule.tail)))


class _Output:
    """A file that remembers why it could not be written: torch.save turns an OSError into one of its own, without the reason."""

    def __init__(self, handle: io.BufferedWriter) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._handle.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._handle.flush()


def _file_writer(
    pieces: Sequence[Piece], source: WeightSource, dtype: torch.dtype
) -> Callable[[Path, Callable[[int], None]], dict[str, Any]]:
    def write(path: Path, report: Callable[[int], None]) -> dict[str, Any]:
        import torch

        fingerprint, used, items = 0, Counter[str](), []
        with open(path, "wb") as handle:
            output = _Output(handle)
            for piece in pieces:
                (rule, layer), start, stop = piece.entry, piece.start, piece.stop
                values = torch.empty((stop - start, *rule.tail), dtype=dtype)
                source.fill(values, rule, layer, start)
                require_finite(values, piece.entry.name, source.name)
                fingerprint += fingerprint_of(values, piece.entry, start)
                for name, _, _, rows in rule.blocks(start, stop, layer):
                    if name is not None:
                        used[name] += rows * prod(rule.tail)
                began = handle.tell()
                try:
                    torch.save(values.view(piece.shape), cast(IO[bytes], output))
                except RuntimeError as error:
                    raise output.error or error from None
                items.append([began, handle.tell() - began])
                report(values.nbytes)
        return {"fingerprint": as_text(fingerprint), "used": dict(used), "items": items}

    return write


def _metadata(files: Sequence[Sequence[Piece]], stored: Sequence[tuple[str, Sequence[Sequence[int]]]], dtype: torch.dtype) -> Any:
    """Torch's description of the checkpoint. `stored`: name of each file, and offset and length of each of its pieces."""
    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo  # torch's loaders look for objects of this class
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties, TensorStorageMetadata

    tensors: dict[str, Any] = {}
    places = {}
    for pieces, (file, items) in zip(files, stored, strict=True):
        for piece, (offset, length) in zip(pieces, items, strict=True):
            entry = tensors.setdefault(piece.key, TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(piece.size), []))
            entry.chunks.append(ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.shape)))
            places[MetadataIndex(piece.key, piece.offsets)] = _StorageInfo(file, offset, length)
    return Metadata(state_dict_metadata=tensors, storage_data=places)
