"""What the mapping tables of encoders share: Megatron's names of an encoder's tensors.

Only names and shapes; the rules themselves are in `nemo_ext.convert.rules`.
"""

from __future__ import annotations

from nemo_ext.convert.rules import ONES, ZEROS, Rule, one

ATTENTION = "encoder.layers.{i}.self_attention."
MLP = "encoder.layers.{i}.mlp."
EMBEDDING_NORM = "embedding.embedding_dropout.norm."
HEAD_DENSE, HEAD_NORM = "lm_head.dense.", "lm_head.layer_norm."


def norm(key: str, name: str, size: int, bias: bool) -> list[Rule]:
    """A LayerNorm; `key` and `name` go up to `weight`."""
    rules = [one(key + "weight", name + "weight", (size,), initial=ONES)]
    return [*rules, one(key + "bias", name + "bias", (size,), initial=ZEROS)] if bias else rules


def linear(key: str, name: str, rows: int, columns: int, *, initial: str, bias: bool) -> list[Rule]:
    """A linear layer; `key` and `name` go up to `weight`."""
    rules = [one(key + "weight", name + "weight", (rows, columns), initial=initial)]
    return [*rules, one(key + "bias", name + "bias", (rows,), initial=ZEROS)] if bias else rules
