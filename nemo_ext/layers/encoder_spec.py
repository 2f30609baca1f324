"""Layer specs of encoders: attention both ways, norms before or after the sublayers, with or without bias.

Local layers only. Transformer Engine's have norms with a bias, before each sublayer, and one rotary base for all layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules, get_transformer_layer_offset
from torch.nn import functional

from nemo_ext.layers.activation import Activation
from nemo_ext.layers.local_global import LocalGlobalAttention
from nemo_ext.layers.norm import Norm
from nemo_ext.layers.packed_attention import PackedCoreAttention
from nemo_ext.layers.spec import TRANSFORMER_ENGINE_KEYS


class AddAndNorm(torch.nn.Module):
    """Dropout of a sublayer's output, then the residual, then a norm: in a layer spec in the place of `get_bias_dropout_add`.

    Source: Vaswani et al. 2017, section 3.1; BERT's order.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = Norm(config, config.hidden_size, config.layernorm_epsilon)

    def forward(self, training: bool, fused: bool) -> Callable[..., torch.Tensor]:
        """Megatron's contract: returns a function of (output, bias or None), residual and dropout rate; all `[seq, batch, hidden]`."""
        assert not fused, "DecoderConfig switches this fusion off"

        def add(output_with_bias: tuple[torch.Tensor, torch.Tensor | None], residual: torch.Tensor, rate: float) -> torch.Tensor:
            output, bias = output_with_bias
            return self.norm(residual + functional.dropout(output if bias is None else output + bias, rate, training))

        return add


def encoder_layer_spec(config: Any, first: bool) -> ModuleSpec:
    """One encoder layer; the `first` one of the model has no norm before its attention unless `config.has_first_norm`.

    config: an EncoderConfig.
    """
    norm, add = (
        (IdentityOp, ModuleSpec(module=AddAndNorm, params={"config": config}))
        if config.has_norms_after
        else (
            ModuleSpec(module=Norm, params={"bias": config.has_norm_bias}),
            get_bias_dropout_add,
        )
    )
    attention = ModuleSpec(
        module=LocalGlobalAttention if config.local_rotary_base else SelfAttention,
        params={"attn_mask_type": AttnMaskType.padding},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear, core_attention=PackedCoreAttention, linear_proj=RowParallelLinear
        ),
    )
    linears = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear, activation_func=Activation)
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=IdentityOp if first and not config.has_first_norm else norm,
            self_attention=attention,
            self_attn_bda=add,
            pre_mlp_layernorm=norm,
            mlp=ModuleSpec(module=MLP, submodules=linears),
            mlp_bda=add,
            sharded_state_dict_keys_map=TRANSFORMER_ENGINE_KEYS,
        ),
    )


def encoder_block_spec(config: Any, vp_stage: int | None = None) -> TransformerBlockSubmodules:
    """All layers of this pipeline stage and, where the norms stand before the sublayers, the final norm."""
    stage = {"vp_stage": vp_stage, "pp_rank": parallel_state.get_pipeline_model_parallel_rank()}
    start, count = get_transformer_layer_offset(config, **stage), get_num_layers_to_build(config, **stage)
    layers = [encoder_layer_spec(config, first=layer == 0) for layer in range(start, start + count)]
    final_norm = None if config.has_norms_after else ModuleSpec(module=Norm, params={"bias": config.has_norm_bias})
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=final_norm)
