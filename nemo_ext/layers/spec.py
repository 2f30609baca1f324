"""Layer specs of decoders: our own layers, or Transformer Engine's, with the same checkpoint keys.

Which of the two is decided once per run by `resolve_layer_spec`. The dimensions are in the config, not here.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from nemo_ext.common.errors import ConfigError, VersionError, nearest
from nemo_ext.layers.activation import Activation
from nemo_ext.layers.attention import TorchCoreAttention
from nemo_ext.layers.local_global import LocalGlobalAttention
from nemo_ext.layers.norm import Norm, PostNormAdd
from nemo_ext.layers.shared_key_value_heads import SharedKeyValueHeadsLinear

LAYER_SPECS = ("auto", "te", "local")
# Transformer Engine keeps a norm inside the linear layer that follows it, and its checkpoints name it so.
TRANSFORMER_ENGINE_KEYS = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
    "self_attn_bda.norm.": "self_attention.linear_proj.post_layernorm.",
    "mlp_bda.norm.": "mlp.linear_fc2.post_layernorm.",
}

logger = logging.getLogger(__name__)


def resolve_layer_spec(layer_spec: str) -> str:
    """`te` or `local`: `auto` takes Transformer Engine where it is installed and a GPU is there to run it; logged.

    Raises ConfigError for another word, VersionError when `te` is asked for and Transformer Engine is not installed.
    """
    if layer_spec not in LAYER_SPECS:
        raise ConfigError(f"model.layer_spec={layer_spec!r} is not known.{nearest(layer_spec, LAYER_SPECS)}")
    installed = importlib.util.find_spec("transformer_engine") is not None
    if layer_spec == "te" and not installed:
        raise VersionError(
            "model.layer_spec=te, but Transformer Engine is not installed here. "
            "Run inside the GPU container, or set model.layer_spec=local (auto chooses by itself)."
        )
    # torch.cuda, because the question is whether Transformer Engine's kernels, which are CUDA only, can run.
    runs = installed and torch.cuda.is_available()
    resolved = ("te" if runs else "local") if layer_spec == "auto" else layer_spec
    logger.info("layer_spec=%s: %s layers", layer_spec, "Transformer Engine" if resolved == "te" else "local (torch)")
    return resolved


def local_layer_spec(config: Any) -> ModuleSpec:
    """One decoder layer, norms before attention and MLP, of Megatron's linear layers and our norm and core attention.

    config: a DecoderConfig, which says what else there is. `qk_layernorm` also makes Megatron sum these norms' gradients over tp.
    """
    head_norm = Norm if config.qk_layernorm else None
    add = ModuleSpec(module=PostNormAdd, params={"config": config}) if config.has_post_norms else get_bias_dropout_add
    attention = ModuleSpec(
        module=LocalGlobalAttention if config.local_rotary_base else SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=SharedKeyValueHeadsLinear if config.shares_key_value_heads else ColumnParallelLinear,
            core_attention=TorchCoreAttention,
            linear_proj=RowParallelLinear,
            q_layernorm=head_norm,
            k_layernorm=head_norm,
        ),
    )
    mlp = ModuleSpec(
        module=MLP,
        submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear, activation_func=Activation),
    )
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=Norm,
            self_attention=attention,
            self_attn_bda=add,
            pre_mlp_layernorm=Norm,
            mlp=mlp,
            mlp_bda=add,
            sharded_state_dict_keys_map=TRANSFORMER_ENGINE_KEYS,
        ),
    )


def decoder_block_spec(config: Any, vp_stage: int | None = None) -> TransformerBlockSubmodules:
    """All layers of this pipeline stage and the final norm, as `config.layer_spec` ("te" or "local") says.

    A block spec rather than a layer spec, because Megatron would otherwise choose the final norm by itself.
    """
    if config.layer_spec == "te":
        from megatron.core.extensions.transformer_engine import TENorm

        layer, final_norm = get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm), TENorm
    else:
        layer, final_norm = local_layer_spec(config), Norm
    layers = get_num_layers_to_build(config, vp_stage=vp_stage, pp_rank=parallel_state.get_pipeline_model_parallel_rank())
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=final_norm)
