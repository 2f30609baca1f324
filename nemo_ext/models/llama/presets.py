"""Sizes of a small modern decoder, as fields of Llama's Hugging Face config, and the family's registry entry. No torch.

For studies from scratch: rotary positions, RMSNorm, SwiGLU, tied embeddings, no biases; exports load as LlamaForCausalLM.
The names are millions of parameters with the vocabularies given, which a run's tokenizer replaces.
"""

from __future__ import annotations

from typing import Any

from nemo_ext.models.family import ModelFamily

# Parameters of transformers' LlamaConfig (4.57) that the presets leave at their default, and the ids and dtype of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("attention_dropout", "attention_bias", "mlp_bias", "rope_scaling", "head_dim", "use_cache", "pretraining_tp"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
    }
)


def _config(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    vocab_size: int,
    max_position_embeddings: int,
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_position_embeddings,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    }


PRESETS = {
    # Ours: GPT-2's depth and width where there is one (124m), its parameters spent as Llama spends them.
    "10m": _config(256, 640, 12, 8, 8, 4096, 1024),
    "30m": _config(384, 960, 14, 6, 6, 16384, 1024),
    "124m": _config(768, 2048, 12, 12, 12, 50257, 1024),
    # The model of the StochasTok paper: arXiv:2506.01687, https://github.com/anyasims/stochastok at 7061534
    "stochastok-47m": _config(512, 1320, 8, 16, 4, 50257, 512),
}

FAMILY = ModelFamily(
    name="llama",
    model_types=("llama",),
    presets=PRESETS,
    megatron_config="nemo_ext.models.llama.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.llama.model:refuse_unexpressible",
    mapping="nemo_ext.models.llama.mapping:mapping",
    free_fields=FREE_FIELDS,
)
