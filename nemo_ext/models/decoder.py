"""Megatron config of decoder language models: what all families share, from layer spec to loaded weights.

The dimensions come from a family's `megatron_config`, the parallel sizes and dtypes from the engine. Where weights come
from is the caller's `weight_loader`; this module only says when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from nemo.collections.llm.gpt.model.base import GPTConfig

from nemo_ext.common.errors import ConfigError
from nemo_ext.layers.local_global import TwoBaseRotary
from nemo_ext.layers.spec import decoder_block_spec, resolve_layer_spec
from nemo_ext.layers.tensor_parallel import mark_tensor_parallel, mask_padded_vocabulary, scale_embedding
from nemo_ext.models.family import padded_vocab_size

WeightLoader = Callable[[MegatronModule], None]


@dataclass
class DecoderConfig(GPTConfig):
    """A decoder as Megatron builds it. Fusions that need CUDA or Transformer Engine, or change numerics, are off.

    true_vocab_size: tokens of the tokenizer; `vocab_size` becomes its padding to a multiple of 128.
    layer_spec: auto, te or local; holds the resolved one afterwards.
    weight_loader: called with the built shard of this rank, whose weights are not initialised then. Without one,
        Megatron initialises (differently for each tensor parallel size).
    has_post_norms: there is a norm after attention and after the MLP, too, before the residual is added.
    local_rotary_base: rotary base of the layers with a window, if it is another; the global layers' frequencies are then
        divided by `global_rotary_factor`.
    has_scaled_embedding: embeddings are multiplied by sqrt(hidden_size).
    key_value_heads: the model's, from num_query_groups, which becomes tp where tp is a multiple of it: Megatron wants one for each rank.
    """

    true_vocab_size: int = 0
    layer_spec: str = "auto"
    weight_loader: WeightLoader | None = None
    num_query_groups: int | None = None
    has_post_norms: bool = False
    local_rotary_base: float | None = None
    global_rotary_factor: float = 1.0
    has_scaled_embedding: bool = False
    key_value_heads: int | None = None

    transformer_layer_spec: Any = decoder_block_spec

    gradient_accumulation_fusion: bool = False
    bias_activation_fusion: bool = False
    bias_dropout_fusion: bool = False
    masked_softmax_fusion: bool = False
    apply_rope_fusion: bool = False
    cross_entropy_loss_fusion: bool = False
    persist_layer_norm: bool = False

    def __post_init__(self) -> None:
        assert self.true_vocab_size > 0, "a decoder needs true_vocab_size"
        if self.key_value_heads is None:
            self.key_value_heads = self.num_query_groups or self.num_attention_heads
        self.num_query_groups = self.tensor_model_parallel_size if self.shares_key_value_heads else self.key_value_heads
        self.layer_spec = resolve_layer_spec(self._possible_layer_spec())
        self.vocab_size = padded_vocab_size(self.true_vocab_size)
        if self.weight_loader is not None:
            self.perform_initialization = False
        # The switch that makes Megatron's MLP take the activation of the layer spec, whoever wrote it. Off while Megatron checks
        # the config, each time anew (NeMo has it checked twice), because it would allow Transformer Engine's activations only.
        self.use_te_activation_func = False
        super().__post_init__()
        self.use_te_activation_func = self.layer_spec == "local"

    @property
    def shares_key_value_heads(self) -> bool:
        """Whether several tensor parallel ranks' queries belong to one key/value head."""
        heads, tp = self.key_value_heads, self.tensor_model_parallel_size
        return heads is not None and heads < tp and tp % heads == 0

    def _possible_layer_spec(self) -> str:
        """The layer spec asked for, or `local` where there is no other. Raises ConfigError if `te` is asked for then."""
        features = {
            "norms after attention and MLP": self.has_post_norms,
            "two rotary bases": self.local_rotary_base is not None,
            "fewer key/value heads than tensor parallel ranks": self.shares_key_value_heads,
        }
        found = ", ".join(name for name, here in features.items() if here)
        if found and self.layer_spec == "te":
            raise ConfigError(f"model.layer_spec=te, but Transformer Engine layers do not have: {found}. Set model.layer_spec=local.")
        return "local" if found and self.layer_spec == "auto" else self.layer_spec

    def configure_model(
        self, tokenizer: Any = None, pre_process: bool | None = None, post_process: bool | None = None, vp_stage: int | None = None
    ) -> Any:
        """This rank's part of the model, with marks and true vocabulary in place and, given a `weight_loader`, its weights."""
        model = self._build(tokenizer, pre_process, post_process, vp_stage)
        model.to(self.params_dtype)  # Megatron makes learned positions in fp32 whatever the model is in
        mark_tensor_parallel(model)
        if self.has_scaled_embedding and hasattr(model, "embedding"):
            scale_embedding(model.embedding.word_embeddings, sqrt(self.hidden_size))
        if self.local_rotary_base is not None:
            model.rotary_pos_emb = self._two_base_rotary(self.local_rotary_base)
        if hasattr(model, "output_layer"):
            mask_padded_vocabulary(model.output_layer, self.true_vocab_size)
        if self.weight_loader is not None:
            with torch.no_grad():
                self.weight_loader(model)
        return model

    def _build(self, tokenizer: Any, pre_process: bool | None, post_process: bool | None, vp_stage: int | None) -> Any:
        """The bare Megatron model; an encoder's config builds another."""
        return super().configure_model(tokenizer, pre_process, post_process, vp_stage=vp_stage)

    def _two_base_rotary(self, local_base: float) -> TwoBaseRotary:
        return TwoBaseRotary(
            base=self.rotary_base,
            local_base=local_base,
            factor=self.global_rotary_factor,
            kv_channels=self.kv_channels,
            rotary_percent=self.rotary_percent,
            use_cpu_initialization=self.use_cpu_initialization,
        )
