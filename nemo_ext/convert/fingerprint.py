"""A fingerprint of a model's weights that does not depend on how the model is split, nor on the order of the pieces.

Each element's fp32 bits are multiplied with a pseudo-random odd number for its row and one for its column, both drawn from its
tensor's name, and all products are added modulo 2^64. Ranks therefore add up their shards, and the same weights give the
same figure under any tp and pp, from a checkpoint and from a Hugging Face folder. Two different models agree by
chance with a probability of about 2^-60 (Freivalds' check, 1977). It does not defend against forgery.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from nemo_ext.convert.rules import Entry

if TYPE_CHECKING:
    import torch

_ELEMENTS_AT_ONCE = 2**17  # 1 MiB of int64, which stays in a core's cache; for what has to be copied first
_MODULUS = 2**64
# Constants of the splitmix64 generator (Steele, Lea and Flood, 2014), written as signed numbers for torch.int64.
_GAMMA = 0x9E3779B97F4A7C15 - _MODULUS
_MIX_ONE = 0xBF58476D1CE4E5B9 - _MODULUS
_MIX_TWO = 0x94D049BB133111EB - _MODULUS


def fingerprint_of(values: torch.Tensor, entry: Entry, row: int, column: int = 0, dtype: torch.dtype | None = None) -> int:
    """Sum modulo 2^64 over a piece `[rows]` or `[rows, columns]` of a Megatron tensor that begins at [row, column].

    Padding rows do not count, so that a model and its export have the same fingerprint. bf16 and fp16 count as the fp32
    values that they equal; with `dtype`, values count as they will after rounding to it.
    """
    spans = entry.rule.content(row, row + values.shape[0])
    return sum(_piece(values[start:stop], entry.name, row + start, column, dtype) for start, stop in spans) % _MODULUS


def _piece(values: torch.Tensor, name: str, row: int, column: int, dtype: torch.dtype | None) -> int:
    import torch

    matrix = values.detach().reshape(values.shape[0], -1)
    row_factors = _odd_numbers(name + "/row", row, matrix.shape[0]).to(matrix.device)
    column_factors = _odd_numbers(name + "/column", column, matrix.shape[1]).to(matrix.device)
    step = max(1, _ELEMENTS_AT_ONCE // max(1, matrix.shape[1]))
    total = 0
    for start in range(0, matrix.shape[0], step):
        part = matrix[start : start + step]
        part = part.to(dtype or part.dtype)
        total += _sum_of_products(part if part.dtype == torch.bfloat16 else part.float(), column_factors, row_factors[start : start + step])
    return total


def _sum_of_products(part: torch.Tensor, column_factors: torch.Tensor, row_factors: torch.Tensor) -> int:
    """The sum over bf16 or fp32 values `[rows, columns]`: compiled where they are in a CPU's memory, by torch elsewhere."""
    import torch

    if part.device.type == "cpu":
        from nemo_ext.convert.sums import of_bf16, of_fp32

        compiled, bits = (of_bf16, torch.int16) if part.dtype == torch.bfloat16 else (of_fp32, torch.int32)
        return int(compiled(part.contiguous().view(bits).numpy(), column_factors.numpy(), row_factors.numpy()))
    words = part.float().contiguous().view(torch.int32).to(torch.int64)
    words.add_(words >> 16)  # the lower half of a bf16 value is zero; without this it would stay so in the products
    return int((words.mul_(column_factors).sum(1) * row_factors).sum())


def _odd_numbers(name: str, start: int, count: int) -> torch.Tensor:
    """Numbers [start, start + count) of an endless pseudo-random sequence that belongs to `name`, `[count]` int64, all odd."""
    import torch

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    mixed = (torch.arange(start, start + count) + seed) * _GAMMA
    mixed = (mixed ^ (mixed >> 30)) * _MIX_ONE
    mixed = (mixed ^ (mixed >> 27)) * _MIX_TWO
    return (mixed ^ (mixed >> 31)) | 1


def as_text(total: int) -> str:
    """The fingerprint as 16 hexadecimal digits."""
    return f"{total % _MODULUS:016x}"
