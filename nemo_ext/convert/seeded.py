"""Untrained weights from a seed: the same numbers for every layout of ranks, and for the exported untrained model.

A tensor is drawn in blocks of rows, each from its own Philox stream keyed by (seed, Megatron key, layer, block). A rank
draws only the blocks that its shard overlaps, so memory is the shard plus one block, and tp, pp, dp and the order of loading make
no difference. Values are drawn in fp32 and rounded once to the model's dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

from nemo_ext.convert.rules import NORMAL, ONES, OUTPUT, ZEROS, Entry, Rule

if TYPE_CHECKING:
    import numpy
    import torch

BLOCK_ELEMENTS = 2**16  # 256 KiB of fp32: cheap to draw again for a neighbour's columns, large enough to draw fast


class SeededWeights:
    """Random initial weights as GPT-2 and Megatron choose them.

    Matrices and embeddings are normal(0, std), where std is the config's `initializer_range`; projections back into the
    residual stream (attention output, second MLP matrix) are normal(0, std / sqrt(2 num_layers)); norms are one, biases
    and padding rows zero. NumPy guarantees the numbers within a version; the lock file pins it.
    Source: GPT-2 paper, section 2.3; Megatron's `init_method_normal` and `scaled_init_method_normal`.
    """

    def __init__(self, seed: int, std: float, rules: Sequence[Rule], num_layers: int) -> None:
        self.name = f"seed {seed}, std {std}"
        self.seed, self.num_layers = seed, num_layers
        self._rules = {rule.key for rule in rules}
        self._std = {NORMAL: std, OUTPUT: std / sqrt(2 * num_layers)}

    def fill(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int = 0) -> None:
        assert rule.key in self._rules, rule.key
        if rule.initial in (ONES, ZEROS):
            destination.fill_(1.0 if rule.initial == ONES else 0.0)
        else:
            self._draw_into(destination, rule, layer, row, column)
        for block in rule.blocks(row, row + destination.shape[0], layer):
            if block.name is None:
                destination[block.row : block.row + block.rows].zero_()

    def _draw_into(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int) -> None:
        import torch

        stop = row + destination.shape[0]
        step = max(1, BLOCK_ELEMENTS // max(1, prod(rule.tail)))
        for number in range(row // step, -(-stop // step)):
            values = self._block(rule, layer, number, step)
            first, last = max(row, number * step), min(stop, number * step + len(values))
            part = values[first - number * step : last - number * step]
            if destination.dim() > 1:
                part = part[:, column : column + destination.shape[1]]
            destination[first - row : last - row].copy_(torch.from_numpy(part))

    def _block(self, rule: Rule, layer: int | None, number: int, step: int) -> numpy.ndarray:
        """Rows [number * step, ...) of the tensor, `[rows, *tail]` fp32."""
        import numpy

        text = f"{self.seed}\n{Entry(rule, layer).name}".encode()
        key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")  # Philox takes 128 bits of key
        stream = numpy.random.Generator(numpy.random.Philox(key=key, counter=[0, 0, number, 0]))
        rows = min(step, rule.rows - number * step)
        return stream.standard_normal((rows, *rule.tail), dtype=numpy.float32) * numpy.float32(self._std[rule.initial])

    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "std": self._std[NORMAL]}
