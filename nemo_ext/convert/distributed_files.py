"""The files of a Megatron `torch_dist` checkpoint: what `.metadata` says, and where in a `.distcp` file a tensor's values lie.

Both are pickles. They are read by unpicklers that make tensors' descriptions and nothing else, so opening a checkpoint runs no code
of whoever wrote it, and needs no Megatron, whose classes stand in `.metadata`.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import CheckpointError
from nemo_ext.convert.rectangles import StoredMatrix

if TYPE_CHECKING:
    import torch

METADATA_FILE = ".metadata"
DAMAGED = (OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, ValueError, TypeError, KeyError, AttributeError)
# The modules whose classes describe tensors in `.metadata`; everything else in it is of no use to a reader of weights.
_DESCRIPTIONS = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_MEGATRON_METADATA = ("megatron.core.dist_checkpointing.strategies.torch", "MCoreMetadata")  # torch's, with one more field
# What torch calls the storage of a dtype -> the dtype.
STORAGE_DTYPES = {"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"}
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: lengths of its name and of its extra field


@dataclass(frozen=True)
class Record:
    """Where one saved tensor lies: `length` bytes from `offset` of `file`, in the format of `torch.save`."""

    file: str
    offset: int
    length: int


class _Ignored:
    """Stands for an object that is not needed."""

    def __init__(self, *arguments: Any, **fields: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        import torch
        import torch.distributed.checkpoint.filesystem as filesystem
        import torch.distributed.checkpoint.metadata as metadata

        if (module, name) == _MEGATRON_METADATA:
            return metadata.Metadata
        if module in _DESCRIPTIONS:
            known = getattr(metadata if module == _DESCRIPTIONS[0] else filesystem, name, None)
            return known if isinstance(known, type) else _Ignored
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        value = getattr(torch, name, None) if module == "torch" else None
        return value if value is torch.Size or isinstance(value, (torch.dtype, torch.layout)) else _Ignored


def read_metadata(weights_dir: Path) -> tuple[dict[str, Any], dict[tuple[str, tuple[int, ...]], Record]]:
    """What a checkpoint stores under which key (torch's TensorStorageMetadata, or something else), and where each chunk lies.

    The second is by key and offsets. Raises CheckpointError for a folder without `.metadata` and for one that cannot be read.
    """
    file = weights_dir / METADATA_FILE
    if not file.is_file():
        raise CheckpointError(f"{weights_dir} has no .metadata, so it is no complete Megatron checkpoint. Give a step's weights/ folder.")
    try:
        with open(file, "rb") as handle:
            metadata = _MetadataUnpickler(handle).load()
        places = {
            (index.fqn, tuple(index.offset)): Record(info.relative_path, info.offset, info.length)
            for index, info in metadata.storage_data.items()
            if index.offset is not None
        }
        if any(getattr(info, "transform_descriptors", None) for info in metadata.storage_data.values()):
            raise CheckpointError(f"{weights_dir} holds compressed tensors, which cannot be read in pieces. Save it without compression.")
        return metadata.state_dict_metadata, places
    except (*DAMAGED, IndexError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}). Use an earlier checkpoint.") from None


class _Part(io.RawIOBase):
    """A part of an open file as a file."""

    def __init__(self, handle: Any, begin_byte: int, length: int) -> None:
        self._handle, self._begin, self._length, self._at = handle, begin_byte, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._length - self._at))
        self._handle.seek(self._begin + self._at)
        data = self._handle.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles the description of one saved tensor: (dtype, file of its values, first element, shape, strides)."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: (*storage, offset, tuple(size), tuple(stride))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *rest: tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a saved tensor")

    def persistent_load(self, description: Any) -> tuple[torch.dtype, str]:
        import torch

        _, storage_type, key, _, _ = description
        return getattr(torch, STORAGE_DTYPES[storage_type]), key


def locate(weights_dir: Path, record: Record) -> StoredMatrix:
    """Where the values of a saved tensor lie, as a matrix with a row for each index of its first dimension.

    Raises one of `DAMAGED` for a record that is damaged, and for a tensor whose values do not lie in order.
    """
    file = weights_dir / record.file
    with open(file, "rb") as handle:
        part = io.BufferedReader(_Part(handle, record.offset, record.length))
        archive = zipfile.ZipFile(part)
        root = archive.namelist()[0].partition("/")[0]
        dtype, key, first, shape, stride = _TensorUnpickler(archive.open(f"{root}/data.pkl")).load()
        values = archive.getinfo(f"{root}/data/{key}")
        part.seek(values.header_offset)
        name_length, extra_length = _LOCAL_HEADER.unpack(part.read(_LOCAL_HEADER.size))
        begin = record.offset + values.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        handle.seek(0, io.SEEK_END)
        if values.compress_type != zipfile.ZIP_STORED or not _in_order(shape, stride):
            raise ValueError("its values do not lie in order")
        if handle.tell() < begin + values.file_size or values.file_size < (first + prod(shape)) * dtype.itemsize:
            raise EOFError("the file ends too early")
    return StoredMatrix(file, begin + first * dtype.itemsize, prod(shape[1:]), dtype)


def _in_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether a tensor's elements lie one after the other."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True
