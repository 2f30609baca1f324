"""How the rows of Megatron's tensors are made of rows of Hugging Face tensors. Pure tables, no torch.

A `Rule` lists, for one Megatron tensor as it stands in checkpoints (whole, not sharded), the blocks of rows of Hugging
Face tensors that it consists of. Fused query/key/value, gate and up in one matrix, vocabulary padding: all are
permutations of rows, so one table serves loading, export and initialisation, and its inverse is exact. Keys are
those of Megatron's *sharded* state dict, hence independent of tp, pp and of Transformer Engine. `{i}` is the layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nemo_ext.common.errors import ConversionError, nearest

LAYER = "{i}"
LAYER_IN_KEY = re.compile(r"\.layers\.(\d+)\.")

NORMAL, OUTPUT, ONES, ZEROS = "normal", "output", "ones", "zeros"  # how a tensor starts, see `seeded`


@dataclass(frozen=True)
class Segment:
    """`rows` consecutive rows of Hugging Face tensor `name` from row `start`; `name=None` is padding, zero in every model."""

    name: str | None
    start: int
    rows: int


class Block(NamedTuple):
    """A run of rows found by `Rule.blocks`: `rows` rows at `row` of the asked range are `hf_row`... of tensor `name`."""

    name: str | None
    hf_row: int
    row: int
    rows: int


@dataclass(frozen=True)
class Rule:
    """One Megatron tensor `[rows, *tail]` and the row blocks it consists of, in order.

    key: name in Megatron's sharded state dict, with `{i}` for the layer.
    tail: dimensions after the first, `()` for vectors.
    initial: how the tensor starts in an untrained model: "normal", "output", "ones" or "zeros".
    transposed: the Hugging Face tensor is stored `[*tail, rows]` (Conv1D).
    layers: which layers have this tensor; None means all.
    """

    key: str
    segments: tuple[Segment, ...]
    tail: tuple[int, ...] = ()
    initial: str = NORMAL
    transposed: bool = False
    layers: Callable[[int], bool] | None = None

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, *self.tail)

    @property
    def per_layer(self) -> bool:
        return LAYER in self.key

    def blocks(self, start: int, stop: int, layer: int | None = None) -> Iterator[Block]:
        """The blocks that make up rows [start, stop) of this tensor, in order, with the layer put into the names."""
        position = 0
        for segment in self.segments:
            first, last = max(position, start), min(position + segment.rows, stop)
            if first < last:
                name = segment.name and segment.name.replace(LAYER, str(layer))
                yield Block(name, segment.start + first - position, first - start, last - first)
            position += segment.rows

    def content(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of rows [start, stop) that are no padding, as few (start, stop) as possible, relative to `start`."""
        spans: list[tuple[int, int]] = []
        for name, _, row, rows in self.blocks(start, stop):
            if name is None:
                continue
            if spans and spans[-1][1] == row:
                spans[-1] = (spans[-1][0], row + rows)
            else:
                spans.append((row, row + rows))
        return spans


def one(key: str, name: str, shape: Sequence[int], *, initial: str = NORMAL, transposed: bool = False) -> Rule:
    """A tensor that both sides hold alike, apart from its name. `shape` is Megatron's."""
    return Rule(key, (Segment(name, 0, shape[0]),), tuple(shape[1:]), initial, transposed)


def concatenated(key: str, names: Sequence[str], rows: int, tail: Sequence[int] = (), *, initial: str = NORMAL) -> Rule:
    """Whole tensors of `rows` rows each, one below the other (gate and up)."""
    return Rule(key, tuple(Segment(name, 0, rows) for name in names), tuple(tail), initial)


def qkv(
    key: str,
    names: tuple[str, str, str],
    *,
    heads: int,
    groups: int,
    head_dim: int,
    tail: Sequence[int] = (),
    starts: tuple[int, int, int] = (0, 0, 0),
    initial: str = NORMAL,
    transposed: bool = False,
) -> Rule:
    """Megatron's fused query/key/value: per group, the rows of its query heads, then its key head, then its value head.

    names: the query, key and value tensors, which may be one and the same fused tensor; `starts` are their first rows in it.
    heads, groups, head_dim: query heads, key/value heads and the size of one head. Source of the order: Megatron's
    `SelfAttention.get_query_key_value_tensors`, which views the output as [..., groups, heads/groups + 2, head_dim].
    """
    if heads % groups:
        raise ConversionError(f"{heads} attention heads cannot be shared by {groups} key/value heads. Use a divisor of {heads}.")
    query_rows = heads // groups * head_dim
    segments = tuple(
        Segment(name, start + group * rows, rows)
        for group in range(groups)
        for name, start, rows in zip(names, starts, (query_rows, head_dim, head_dim), strict=True)
    )
    return Rule(key, segments, tuple(tail), initial, transposed)


def vocabulary(key: str, name: str, vocab_size: int, padded_vocab_size: int, tail: Sequence[int] = (), *, initial: str = NORMAL) -> Rule:
    """A tensor with one row per token, below it zero rows up to `padded_vocab_size`."""
    padding = (Segment(None, 0, padded_vocab_size - vocab_size),) if padded_vocab_size > vocab_size else ()
    return Rule(key, (Segment(name, 0, vocab_size), *padding), tuple(tail), initial)


def layer_count(hf_config: Mapping[str, Any]) -> int:
    """Number of layers of a Hugging Face config (GPT-2 calls it n_layer)."""
    for field in ("num_hidden_layers", "n_layer"):
        if field in hf_config:
            return int(hf_config[field])
    raise ConversionError("The Hugging Face config has neither num_hidden_layers nor n_layer. Give a decoder's or encoder's config.json.")


class Entry(NamedTuple):
    """One tensor of the unsharded Megatron model: a rule and, if it is a layer's, which layer."""

    rule: Rule
    layer: int | None

    @property
    def name(self) -> str:
        """Key with the layer's number in it; the same for stacked and for per-layer checkpoints."""
        return self.rule.key.replace(LAYER, str(self.layer))


class Table:
    """A family's rules at a number of layers: finds the rule of a checkpoint key and the shapes of the HF tensors."""

    def __init__(self, rules: Sequence[Rule], num_layers: int) -> None:
        self.num_layers = num_layers
        self._rules = {rule.key: rule for rule in rules}
        if len(self._rules) != len(rules):
            raise ConversionError("The mapping table has two rules for one Megatron key. Keep one of them.")
        self.hf_shapes = self._hf_shapes()

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order of the table."""
        return list(self._rules.values())

    def entries(self) -> Iterator[Entry]:
        """Every tensor of the model, in the order of the table."""
        for rule in self._rules.values():
            if not rule.per_layer:
                yield Entry(rule, None)
            else:
                yield from (Entry(rule, i) for i in range(self.num_layers) if rule.layers is None or rule.layers(i))

    def find(self, key: str) -> tuple[Rule, int | None]:
        """Rule of a key of Megatron's sharded state dict, and the layer if the key names it (else it is an axis).

        Raises ConversionError for a key that the table does not have.
        """
        named = LAYER_IN_KEY.search(key)
        if named:
            general, layer = LAYER_IN_KEY.sub(f".layers.{LAYER}.", key, count=1), int(named[1])
        else:
            general, layer = key, None
            if key not in self._rules:
                general = key.replace(".layers.", f".layers.{LAYER}.", 1)
        rule = self._rules.get(general)
        if rule is None:
            raise ConversionError(f"Megatron tensor {key!r} is not in the mapping table of this family.{nearest(general, self._rules)}")
        return rule, layer

    def _hf_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every Hugging Face tensor. Raises ConversionError unless each row has exactly one place in Megatron."""
        spans: dict[str, list[tuple[int, int]]] = {}
        tails: dict[str, tuple[tuple[int, ...], bool]] = {}
        for rule, layer in self.entries():
            for name, hf_row, _, rows in rule.blocks(0, rule.rows, layer):
                if name is None:
                    continue
                spans.setdefault(name, []).append((hf_row, hf_row + rows))
                if tails.setdefault(name, (rule.tail, rule.transposed)) != (rule.tail, rule.transposed):
                    raise ConversionError(f"The mapping table gives {name!r} two different shapes. Mend the rules that name it.")
        shapes = {}
        for name, found in spans.items():
            found.sort()
            stops = [0, *(stop for _, stop in found)]
            for (start, _), expected in zip(found, stops, strict=False):
                if start != expected:
                    raise ConversionError(
                        f"The mapping table maps row {min(start, expected)} of {name!r} not exactly once. Mend its rules."
                    )
            tail, transposed = tails[name]
            shapes[name] = (*tail, stops[-1]) if transposed else (stops[-1], *tail)
        return shapes
