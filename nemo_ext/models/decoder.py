"""Megatron config of decoder language models: what all families share, from layer spec to loaded weights.

The dimensions come from a family's `megatron_config`, the parallel sizes and dtypes from the engine. Where weights come
from is the caller's `weight_loader`; this module only says when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.module import MegatronModule
from nemo.collections.llm.gpt.model.base import GPTConfig

from nemo_ext.layers.spec import decoder_block_spec, resolve_layer_spec
from nemo_ext.layers.tensor_parallel import mark_tensor_parallel, mask_padded_vocabulary
from nemo_ext.models.family import padded_vocab_size

WeightLoader = Callable[[MegatronModule], None]


@dataclass
class DecoderConfig(GPTConfig):
    """A decoder as Megatron builds it. Fusions that need CUDA or Transformer Engine, or change numerics, are off.

    true_vocab_size: tokens of the tokenizer; `vocab_size` becomes its padding to a multiple of 128.
    layer_spec: auto, te or local; holds the resolved one afterwards.
    weight_loader: called with the built shard of this rank, whose weights are not initialised then. Without one,
        Megatron initialises (differently for each tensor parallel size).
    """

    true_vocab_size: int = 0
    layer_spec: str = "auto"
    weight_loader: WeightLoader | None = None

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
        self.layer_spec = resolve_layer_spec(self.layer_spec)
        self.vocab_size = padded_vocab_size(self.true_vocab_size)
        if self.weight_loader is not None:
            self.perform_initialization = False
        super().__post_init__()
        # The switch that makes Megatron's MLP take the activation of the layer spec, whoever wrote it.
        self.use_te_activation_func = self.layer_spec == "local"

    def configure_model(
        self, tokenizer: Any = None, pre_process: bool | None = None, post_process: bool | None = None, vp_stage: int | None = None
    ) -> GPTModel:
        """This rank's part of the model, with marks and true vocabulary in place and, given a `weight_loader`, its weights."""
        model = super().configure_model(tokenizer, pre_process, post_process, vp_stage=vp_stage)
        model.to(self.params_dtype)  # Megatron makes learned positions in fp32 whatever the model is in
        mark_tensor_parallel(model)
        if hasattr(model, "output_layer"):
            mask_padded_vocabulary(model.output_layer, self.true_vocab_size)
        if self.weight_loader is not None:
            with torch.no_grad():
                self.weight_loader(model)
        return model
