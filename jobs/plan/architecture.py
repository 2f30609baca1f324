"""A model as the planner sees it: which tensors stand on which rank, and the widths that decide its activations.

Both follow from the family's mapping table, whose keys are Megatron's names, so no family is named here. A model whose table has
other tensors than our decoders and encoders has its parameters counted, but `widths` refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from nemo_ext.common.errors import ConfigError
from nemo_ext.common.hf_config import with_common_names
from nemo_ext.models.family import ModelFamily

# Megatron's column parallel layers and embeddings are split by rows, its row parallel layers by columns; all else is on every rank.
SPLIT_BY_ROWS = (
    *("linear_qkv.weight", "linear_qkv.bias", "linear_fc1.weight", "linear_fc1.bias"),
    *("word_embeddings.weight", "output_layer.weight", "output_layer.bias"),
)
SPLIT_BY_COLUMNS = ("linear_proj.weight", "linear_fc2.weight")
EMBEDDING, OUTPUT = "embedding.word_embeddings.weight", "output_layer.weight"
ATTENTION, MLP = "layers.{i}.self_attention.", "layers.{i}.mlp."
NORMS = (
    *(ATTENTION + "linear_qkv.layer_norm_weight", MLP + "linear_fc1.layer_norm_weight"),
    *(ATTENTION + "linear_proj.post_layernorm.weight", MLP + "linear_fc2.post_layernorm.weight"),
)
LOCAL_BASES = ("rope_local_base_freq", "local_rope_theta")
NEVER_TRAINED = ("pooler.", "next_sentence.")  # carried along for the export: nemo_ext/models/encoder_model.py
KNOWN = {  # what the activations of decoders and of encoders are known of
    "decoder.": ("embedding.word_embeddings.", "embedding.position_embeddings.", "decoder.", "output_layer.weight"),
    "encoder.": ("embedding.", "encoder.", "lm_head.", "output_layer.bias", *NEVER_TRAINED),
}


@dataclass(frozen=True)
class Tensor:
    """One row of the table: a parameter of the whole model, and in which of its layers it is (None: not in a layer).

    groups, key_value_rows: of the fused query/key/value, how many key/value heads it has and their rows; else 0.
    """

    key: str
    shape: tuple[int, ...]
    layers: frozenset[int] | None
    initial: str
    groups: int = 0
    key_value_rows: int = 0

    def local_shapes(self, tp: int) -> list[tuple[int, ...]]:
        """Shapes of the parameters that one of `tp` tensor parallel ranks makes of it.

        Two where there are more ranks than key/value heads: the rank's queries, and all keys and values.
        """
        rows, rest = self.shape[0], self.shape[1:]
        if tp > self.groups > 0:
            return [((rows - self.key_value_rows) // tp, *rest), (self.key_value_rows, *rest)]
        if self.key.endswith(SPLIT_BY_ROWS):
            return [(rows // tp, *rest)]
        return [(rows, rest[0] // tp)] if self.key.endswith(SPLIT_BY_COLUMNS) else [self.shape]


@dataclass(frozen=True)
class Widths:
    """Elements per token of a model's activations, over all tensor parallel ranks, and what kind of layers make them."""

    hidden: int
    query: int
    key: int  # the value is as wide
    heads: int
    groups: int
    ffn: int
    vocabulary: int  # padded
    gated: bool
    rms_norm: bool
    zero_centered: bool
    head_norms: bool
    layer_norms: int  # in a layer, before and after attention and MLP
    first_norm: bool  # the first layer has as many as the others
    final_norm: bool
    rotary_bases: int  # 0: learned positions
    windows: tuple[int | None, ...]  # of each layer: how many earlier keys a query sees, None for all
    is_encoder: bool  # queries see later keys, too, and a head comes before the output layer

    @property
    def rotary(self) -> bool:
        return self.rotary_bases > 0

    @property
    def head_size(self) -> int:
        return self.query // self.heads


@dataclass(frozen=True)
class Architecture:
    """A Hugging Face config with the tensors of its Megatron model."""

    family: str
    hf_config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    num_layers: int
    objective: str = "causal"

    @property
    def tied(self) -> bool:
        return all(tensor.key != OUTPUT for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Parameters of the whole model, vocabulary padding included."""
        return sum(prod(tensor.shape) * (1 if tensor.layers is None else len(tensor.layers)) for tensor in self.tensors)

    def on_rank(self, stage: int, tp: int, pp: int) -> list[tuple[str, tuple[int, ...]]]:
        """(key, local shape) of each parameter on a rank of pipeline stage `stage`, tied embeddings on the first and the last."""
        per_stage = self.num_layers // pp
        own = range(stage * per_stage, (stage + 1) * per_stage)
        found = []
        for tensor in self.tensors:
            if tensor.layers is not None:
                copies = sum(layer in tensor.layers for layer in own)
            elif tensor.key == EMBEDDING and self.tied:
                copies = int(stage in (0, pp - 1))
            else:
                copies = int(stage == (0 if tensor.key.startswith("embedding.") else pp - 1))
            found += [(tensor.key, shape) for shape in tensor.local_shapes(tp)] * copies
        return found

    @cached_property
    def widths(self) -> Widths:
        """What activations depend on. Raises ConfigError unless this is a decoder or an encoder as nemo_ext/models has them."""
        tensors = {tensor.key: tensor for tensor in self.tensors}
        block = "encoder." if self.objective == "masked" else "decoder."
        foreign = [key for key in tensors if not key.startswith(KNOWN[block])]
        if foreign or block + MLP + "linear_fc2.weight" not in tensors:
            raise ConfigError(
                f"The activations of family {self.family!r} cannot be planned: its model has {', '.join(foreign) or 'no such layers'}. "
                "Plan a decoder or an encoder of this project, or measure a short run."
            )
        return _widths(with_common_names(self.hf_config), tensors, self.num_layers, block)


def read_architecture(family: ModelFamily, hf_config: Mapping[str, Any]) -> Architecture:
    """The architecture of a Hugging Face config in its family's normal form. Raises ConversionError for what Megatron cannot express."""
    family.check(hf_config)
    config = with_common_names(hf_config)
    num_layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    tensors = []
    for rule in family.build_mapping(hf_config):
        layers = frozenset(i for i in range(num_layers) if rule.layers is None or rule.layers(i)) if rule.per_layer else None
        fused = rule.key.endswith(("linear_qkv.weight", "linear_qkv.bias"))
        key_value_rows = rule.rows * 2 * groups // (heads + 2 * groups) if fused else 0
        tensors.append(Tensor(rule.key, rule.shape, layers, rule.initial, groups if fused else 0, key_value_rows))
    return Architecture(family.name, hf_config, tuple(tensors), num_layers, family.objective)


def _widths(config: Mapping[str, Any], tensors: Mapping[str, Tensor], num_layers: int, block: str) -> Widths:
    shapes = {key.removeprefix(block): tensor.shape for key, tensor in tensors.items()}
    hidden, query = shapes[ATTENTION + "linear_proj.weight"]
    key = (shapes[ATTENTION + "linear_qkv.weight"][0] - query) // 2
    heads, ffn = config["num_attention_heads"], shapes[MLP + "linear_fc2.weight"][1]
    before_attention = tensors.get(block + NORMS[0])
    final_norm = tensors.get(block + "final_layernorm.weight")
    is_encoder = block == "encoder."
    return Widths(
        hidden=hidden,
        query=query,
        key=key,
        heads=heads,
        groups=key * heads // query,
        ffn=ffn,
        vocabulary=shapes[EMBEDDING][0],
        gated=shapes[MLP + "linear_fc1.weight"][0] == 2 * ffn,
        rms_norm=not is_encoder and "final_layernorm.bias" not in shapes,
        zero_centered=final_norm is not None and final_norm.initial == "zeros",
        head_norms=ATTENTION + "q_layernorm.weight" in shapes,
        layer_norms=sum(name in shapes for name in NORMS),
        first_norm=before_attention is None or 0 in (before_attention.layers or ()),
        final_norm=final_norm is not None,
        rotary_bases=0 if "embedding.position_embeddings.weight" in shapes else 1 + any(name in config for name in LOCAL_BASES),
        windows=_windows(config, num_layers),
        is_encoder=is_encoder,
    )


def _windows(config: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """Of each layer, from either of the two ways in which configs say it."""
    if "global_attn_every_n_layers" in config:
        side, period = config["local_attention"] // 2, config["global_attn_every_n_layers"]
        return tuple(side if layer % period else None for layer in range(num_layers))
    kinds = config.get("layer_types") or ["full_attention"] * num_layers
    return tuple(config["sliding_window"] - 1 if kind == "sliding_attention" else None for kind in kinds)
