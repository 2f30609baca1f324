"""Where weights come from: a source fills any piece of any Megatron tensor, whoever asks and however the model is split.

A piece is a rectangle of an unsharded Megatron tensor, so a rank asks for its shard only, and an exporter for as many
rows as it wants in memory. `HuggingFaceWeights` is here; `seeded` makes untrained weights, `checkpoint` reads trained ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.reader import FLOATS, SafetensorsReader, check_tensors
from nemo_ext.convert.rectangles import BUFFER_BYTES
from nemo_ext.convert.rules import Block, Rule, Table, layer_count
from nemo_ext.convert.surplus import allowed_surplus, leave_out_untrained, rename_old_norms
from nemo_ext.models.family import read_model_config

if TYPE_CHECKING:
    import torch

WRITTEN_DTYPES = ("F32", "BF16", "F16")
PIECE_BYTES = 32 * 2**20


class WeightSource(Protocol):
    """Anything that can fill pieces of Megatron tensors."""

    name: str

    def fill(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int = 0) -> None:
        """Overwrite `destination` `[rows]` or `[rows, columns]` with the piece whose first element is [row, column]."""

    def identity(self) -> dict[str, Any]:
        """What tells these weights from others, as JSON, without reading them all."""


def row_steps(shape: Sequence[int], piece_bytes: int = PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """Row ranges of about `piece_bytes` in fp32, at least one row each."""
    step = max(1, piece_bytes // max(1, 4 * prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


class HuggingFaceWeights:
    """The weights of a Hugging Face folder, read slice by slice.

    rules: the family's table for the folder's config.json, from which the number of layers is taken unless given.
    name: says what was left out: the other parts of a multimodal model, heads that the architecture does not have.
    conversions: (stored dtype, wanted dtype) -> elements filled so far. Raises ConversionError when names or shapes do not fit.
    """

    def __init__(self, directory: Path | str, rules: Sequence[Rule], num_layers: int | None = None) -> None:
        self.directory = Path(directory)
        self.name = str(self.directory)
        self.reader = SafetensorsReader(self.directory)
        left_out = self.reader.keep_language_model()
        if num_layers is None:
            num_layers = layer_count(read_model_config(self.directory))
        self.table = Table(rules, num_layers)
        self.conversions: Counter[tuple[str, str]] = Counter()
        rename_old_norms(self.reader)
        self._counting = Lock()
        self._add_base_prefix()
        left_out |= leave_out_untrained(self.reader, self.table.hf_shapes)
        if left_out:
            self.name += " without " + ", ".join(f"{part} ({count} tensors)" for part, count in sorted(left_out.items()))
        check_tensors(self.reader, self.table.hf_shapes, allowed_surplus(self.reader, self.table.hf_shapes))

    def _add_base_prefix(self) -> None:
        """Read a bare decoder's file, saved without the head and hence without `transformer.` before its names, as the whole model's."""
        first = next(iter(self.table.hf_shapes))
        prefix = first.partition(".")[0] + "."
        if first not in self.reader.tensors and first.removeprefix(prefix) in self.reader.tensors:
            self.reader.add_prefix(prefix)

    def stored_dtype(self) -> torch.dtype:
        """The one dtype that the weights have. Raises ConversionError when there are several, or one that we do not write."""
        import torch

        found = {self.reader.stored(name).dtype for name in self.table.hf_shapes}
        if len(found) != 1 or not found <= set(WRITTEN_DTYPES):
            raise ConversionError(
                f"{self.name} holds weights as {', '.join(sorted(found))}; expected one of {', '.join(WRITTEN_DTYPES)} for all. "
                "Say which dtype to write: --dtype fp32 or bf16."
            )
        return getattr(torch, FLOATS[found.pop()])

    def fill(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int = 0) -> None:
        for block in rule.blocks(row, row + destination.shape[0], layer):
            part = destination[block.row : block.row + block.rows]
            if block.name is None:
                part.zero_()
                continue
            with self._counting:
                self.conversions[self.reader.stored(block.name).dtype, str(destination.dtype).removeprefix("torch.")] += part.numel()
            if rule.transposed:
                self._read_transposed(part, block, column)
            else:
                self.reader.read_into(block.name, part, block.hf_row, column)

    def _read_transposed(self, part: torch.Tensor, block: Block, column: int) -> None:
        """Fill `part` `[rows, columns]` from a tensor that is stored `[columns, rows]`, some columns at a time."""
        import torch

        assert block.name is not None
        step = max(1, BUFFER_BYTES // (4 * part.shape[0]))
        for first in range(0, part.shape[1], step):
            target = part[:, first : first + step]
            values = torch.empty(target.shape[::-1], dtype=part.dtype)
            self.reader.read_into(block.name, values, column + first, block.hf_row)
            target.copy_(values.t())

    def identity(self) -> dict[str, Any]:
        files = sorted({stored.file for stored in self.reader.tensors.values()})
        return {"files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]}
