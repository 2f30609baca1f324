"""Megatron config of encoder language models, BERT and ModernBERT: what they have besides what decoders have.

The dimensions come from a family's `megatron_config`, the parallel sizes and dtypes from the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state

from nemo_ext.common.errors import ConfigError
from nemo_ext.layers.encoder_spec import encoder_block_spec
from nemo_ext.models.decoder import DecoderConfig
from nemo_ext.models.encoder_model import EncoderModel


@dataclass
class EncoderConfig(DecoderConfig):
    """An encoder with a head that predicts masked tokens, as Megatron builds it.

    token_types: embeddings of sentence A, B and so on; 0 for none.
    has_norms_after: each sublayer's norm follows its residual, and there is no final norm.
    has_norm_bias: norms have a bias.
    has_first_norm: there is a norm before the first layer's attention, as before the others'.
    has_head_bias: the linear layer before the output layer has a bias; the output layer has one always.
    head_activation: of that linear layer's output.
    carries_pooler: keep, and never train, the weights of a pooler and of a next-sentence classifier.
    """

    transformer_layer_spec: Any = encoder_block_spec

    token_types: int = 0
    has_norms_after: bool = False
    has_norm_bias: bool = True
    has_first_norm: bool = True
    has_head_bias: bool = True
    head_activation: Callable[[torch.Tensor], torch.Tensor] = torch.nn.functional.gelu
    carries_pooler: bool = False

    def _possible_layer_spec(self) -> str:
        if self.layer_spec == "te":
            raise ConfigError("model.layer_spec=te, but encoders have local layers only. Set model.layer_spec=local, or leave it at auto.")
        return "local"

    def _build(self, tokenizer: Any, pre_process: bool | None, post_process: bool | None, vp_stage: int | None) -> EncoderModel:
        stage = {"ignore_virtual": False, "vp_stage": vp_stage}
        return EncoderModel(
            self,
            pre_process=pre_process or parallel_state.is_pipeline_first_stage(**stage),
            post_process=post_process or parallel_state.is_pipeline_last_stage(**stage),
            vp_stage=vp_stage,
        )
