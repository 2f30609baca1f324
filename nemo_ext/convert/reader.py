"""Read slices of Hugging Face tensors from one safetensors file or from a folder of shards, without holding a model.

Headers are parsed and checked when the reader is made, so that a missing, damaged or misshapen file is named before any
weight is used. Of the data, only what a slice holds is read.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError, DataError, nearest
from nemo_ext.common.files import read_json
from nemo_ext.convert.rectangles import Files, StoredMatrix

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# The dtypes of the safetensors format and their sizes; one that is not here is refused by name wherever its tensor is needed.
ELEMENT_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "BOOL": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
}
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # those that hold weights as they are -> torch's name
# What multimodal checkpoints put before the language model's names, as transformers 4 and 5 write them -> what belongs there.
LANGUAGE_MODEL = {"language_model.": "", "model.language_model.": "model."}
OTHER_PARTS = ("vision_tower", "multi_modal_projector")
_LARGEST_HEADER_BYTES = 100_000_000  # the safetensors library's own limit


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies and what it is; `name` is that in the file, `dtype` safetensors' name, such as "BF16"."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    begin_byte: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Names, shapes and dtypes of a safetensors file, whose size is checked against them.

    Raises ConversionError naming the file when it is missing, damaged or cut short. Source: the safetensors format, an
    8-byte little-endian length, a JSON header of that length, then the data at the offsets that the header gives.
    """
    try:
        size_bytes = path.stat().st_size
        with open(path, "rb") as handle:
            start = handle.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size_bytes - 8, _LARGEST_HEADER_BYTES):
                raise _damaged(path, f"{size_bytes} bytes with a header of {length} bytes")
            header: dict[str, Any] = json.loads(handle.read(length))
    except FileNotFoundError:
        raise ConversionError(f"Weights file {path} does not exist. Download it again, or check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise _damaged(path, "a header that is not JSON") from None
    header.pop("__metadata__", None)
    try:
        tensors = {
            name: StoredTensor(path, name, tuple(item["shape"]), item["dtype"], 8 + length + item["data_offsets"][0])
            for name, item in header.items()
        }
        expected = 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0)
        spans_match = all(_fits(item) for item in header.values())
    except (KeyError, TypeError, IndexError, ValueError):
        raise _damaged(path, "a header without dtype, shape or data_offsets") from None
    if not spans_match:
        raise _damaged(path, "a header whose shapes do not fit its offsets")
    if size_bytes != expected:
        raise _damaged(path, f"{size_bytes} bytes where the header promises {expected}")
    return tensors


def _fits(item: Mapping[str, Any]) -> bool:
    """Whether a tensor's data are as long as shape and dtype say, where the size of the dtype is known."""
    begin, end = item["data_offsets"]
    return item["dtype"] not in ELEMENT_BYTES or prod(item["shape"]) * ELEMENT_BYTES[item["dtype"]] == end - begin


def _damaged(path: Path, found: str) -> ConversionError:
    return ConversionError(f"Weights file {path} is damaged or incomplete: it has {found}. Download or export it again.")


class SafetensorsReader:
    """The tensors of a Hugging Face folder (one file, or shards with an index) or of a single safetensors file.

    tensors: name -> StoredTensor. Raises ConversionError for missing or damaged files and for an index that does not
    match its shards.
    """

    def __init__(self, source: Path | str) -> None:
        self.source = Path(source)
        self.tensors = self._locate()
        self._files = Files()

    def _locate(self) -> dict[str, StoredTensor]:
        if self.source.is_file():
            return read_header(self.source)
        index = self.source / INDEX_FILE
        if not index.exists():
            if not (self.source / SINGLE_FILE).exists():
                raise ConversionError(
                    f"{self.source} has neither {SINGLE_FILE} nor {INDEX_FILE}. Give a Hugging Face folder with safetensors weights "
                    "(convert a .bin checkpoint with transformers' save_pretrained first)."
                )
            return read_header(self.source / SINGLE_FILE)
        try:
            where = read_json(index, "safetensors index")["weight_map"]
        except (DataError, KeyError, TypeError) as error:
            raise ConversionError(f"{index} is not a safetensors index with a weight_map ({error}). Download it again.") from None
        headers = {file: read_header(self.source / file) for file in sorted(set(where.values()))}
        for name, file in where.items():
            if name not in headers[file]:
                raise ConversionError(f"{index} places {name!r} in {file}, which does not hold it. Download both again.")
        for file, header in headers.items():
            unlisted = sorted(name for name in header if where.get(name) != file)
            if unlisted:
                raise ConversionError(
                    f"{self.source / file} holds {unlisted[0]!r}, which {index.name} does not place there. Download both again."
                )
        return {name: headers[file][name] for name, file in where.items()}

    def add_prefix(self, prefix: str) -> None:
        """Know every tensor that lacks `prefix` by its name with it."""
        self.tensors = {name if name.startswith(prefix) else prefix + name: stored for name, stored in self.tensors.items()}

    def keep_language_model(self) -> dict[str, int]:
        """Of a multimodal checkpoint keep the language model, under its own names; returns how many tensors of which other part went.

        Any other checkpoint, and a tensor of no known part, stays as it is.
        """
        prefix = next((prefix for prefix in LANGUAGE_MODEL if any(name.startswith(prefix) for name in self.tensors)), None)
        if prefix is None:
            return {}
        left_out: Counter[str] = Counter()
        kept = {}
        for name, stored in self.tensors.items():
            part = name.removeprefix("model.").partition(".")[0]
            if part in OTHER_PARTS:
                left_out[part] += 1
            else:
                kept[LANGUAGE_MODEL[prefix] + name.removeprefix(prefix) if name.startswith(prefix) else name] = stored
        self.tensors = kept
        return dict(left_out)

    def stored(self, name: str) -> StoredTensor:
        """Shape, dtype and file of a tensor. Raises ConversionError, naming the nearest names, when there is none."""
        if name not in self.tensors:
            raise ConversionError(f"{self.source} has no tensor {name!r}.{nearest(name, self.tensors)}")
        return self.tensors[name]

    def read(self, name: str, *ranges: tuple[int, int]) -> torch.Tensor:
        """A slice of a tensor in its stored dtype; `ranges` are (start, stop) of its first one or two dimensions, the rest is whole."""
        import torch

        stored = self.stored(name)
        spans = [*ranges, *((0, size) for size in stored.shape[len(ranges) :])]
        values = torch.empty([stop - start for start, stop in spans], dtype=getattr(torch, FLOATS[stored.dtype]))
        self.read_into(name, values, *(start for start, _ in spans[:2]))
        return values

    def read_into(self, name: str, destination: torch.Tensor, row: int = 0, column: int = 0) -> None:
        """Overwrite `destination` with the piece of a tensor whose first element is [row, column], converted to its dtype.

        Any number of threads may call it. Raises ConversionError when the file cannot be read.
        """
        import torch

        stored = self.stored(name)
        inner = prod(stored.shape[2:])
        matrix = StoredMatrix(stored.file, stored.begin_byte, prod(stored.shape[1:]), getattr(torch, FLOATS[stored.dtype]))
        try:
            self._files.read_into(matrix, destination, row, column * inner)
        except (OSError, EOFError) as error:
            raise _damaged(stored.file, f"tensor {name!r} unreadable ({error})") from None

    def close(self) -> None:
        """Close the files. The reader can be used again."""
        self._files.close()


def check_tensors(
    reader: SafetensorsReader, expected: Mapping[str, Sequence[int]], surplus_allowed: Sequence[str] = (), remedy: str = ""
) -> None:
    """Compare a reader's tensors with the names and shapes that a mapping table expects.

    surplus_allowed: names that may be there besides. Raises ConversionError listing what is missing, too much,
    misshapen (found and expected) or not of a floating-point dtype, and in which file.
    """
    found = reader.tensors
    problems = [f"missing {name!r} {list(expected[name])}" for name in expected if name not in found]
    for name, stored in found.items():
        where = f"in {stored.file.name}"
        if name not in expected:
            if name not in surplus_allowed:
                problems.append(f"unknown {name!r} {list(stored.shape)} {where}")
        elif stored.shape != tuple(expected[name]):
            problems.append(f"{name!r} {where} has shape {list(stored.shape)}, expected {list(expected[name])}")
        elif stored.dtype not in FLOATS:
            problems.append(f"{name!r} {where} is {stored.dtype}, expected one of {', '.join(FLOATS)}")
    quantised = sorted({stored.dtype for name, stored in found.items() if name in expected and stored.dtype not in FLOATS})
    if quantised:
        remedy = (
            f"Weights as {', '.join(quantised)} are quantised: their scales are not applied here. Use the model's bf16 version, or "
            "dequantise it first (transformers' from_pretrained with dequantize=True in its quantization_config, then save_pretrained)."
        )
    if problems:
        listed = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ConversionError(
            f"The weights in {reader.source} do not fit the model ({len(problems)} problem(s)): {listed}. "
            + (remedy or "Check that config.json and the weights belong to the same model, and that all files were downloaded.")
        )
