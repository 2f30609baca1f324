"""A fingerprint of a model's weights that does not depend on how the model is split, nor on the order of the pieces.

Each element contributes a 64-bit mix of its tensor's name, its place in the whole tensor and its fp32 bits; the contributions are
added modulo 2^64. Ranks therefore add up their shards, and the same weights give the same figure under any tp and pp, from a
checkpoint and from a Hugging Face folder. It tells weights apart; it does not defend against forgery.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING

from nemo_ext.convert.rules import Entry

if TYPE_CHECKING:
    import torch

_ELEMENTS_AT_ONCE = 2**20
_MODULUS = 2**64
# Odd 64-bit constants of the splitmix64 generator (Steele, Lea and Flood, 2014), written as signed numbers for torch.int64.
_GAMMA = 0x9E3779B97F4A7C15 - _MODULUS
_MIX_ONE = 0xBF58476D1CE4E5B9 - _MODULUS
_MIX_TWO = 0x94D049BB133111EB - _MODULUS


def fingerprint_of(values: torch.Tensor, entry: Entry, row: int, column: int = 0) -> int:
    """Sum modulo 2^64 over a piece `[rows]` or `[rows, columns]` of a Megatron tensor that begins at [row, column].

    Padding rows do not count, so that a model and its export have the same fingerprint.
    """
    width = prod(entry.rule.tail)
    spans = entry.rule.content(row, row + values.shape[0])
    return sum(piece_fingerprint(values[start:stop], entry.name, row + start, column, width) for start, stop in spans) % _MODULUS


def piece_fingerprint(values: torch.Tensor, name: str, row: int, column: int, width: int) -> int:
    """Sum modulo 2^64 over the piece `values` `[rows]` or `[rows, columns]` that begins at [row, column] of tensor `name`.

    width: elements in a row of the whole tensor, 1 for a vector. bf16 and fp16 count as the fp32 values that they equal.
    """
    salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    matrix = values.detach().reshape(values.shape[0], -1)
    step = max(1, _ELEMENTS_AT_ONCE // max(1, matrix.shape[1]))
    total = 0
    for start in range(0, matrix.shape[0], step):
        total += _sum_of_mixes(matrix[start : start + step], salt, row + start, column, width)
    return total % _MODULUS


def _sum_of_mixes(matrix: torch.Tensor, salt: int, row: int, column: int, width: int) -> int:
    import torch

    rows = torch.arange(row, row + matrix.shape[0], device=matrix.device)
    columns = torch.arange(column, column + matrix.shape[1], device=matrix.device)
    place = rows[:, None] * width + columns + salt
    mixed = matrix.float().contiguous().view(torch.int32).to(torch.int64) + place * _GAMMA
    mixed = (mixed ^ (mixed >> 30)) * _MIX_ONE
    mixed = (mixed ^ (mixed >> 27)) * _MIX_TWO
    return int((mixed ^ (mixed >> 31)).sum())


def as_text(total: int) -> str:
    """The fingerprint as 16 hexadecimal digits."""
    return f"{total % _MODULUS:016x}"
