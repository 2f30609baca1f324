"""Sizes of the Qwen3 architecture, as fields of its Hugging Face config, and the family's registry entry. No torch.

`tiny` is ours, for tests; the others are the published dense sizes, from the `config.json` at the address beside each.
Token ids belong to the tokenizer, dtypes to the run, and are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.models.family import ModelFamily

# Parameters of transformers' Qwen3Config (4.57) that the presets leave at their default, and the ids and dtype of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("attention_dropout", "rope_scaling", "layer_types", "sliding_window", "max_window_layers", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
    }
)


def complete(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the heads that transformers' Qwen3Config (4.57) takes when config.json has none."""
    return {"head_dim": 128, "num_key_value_heads": 32, **hf_config}


def _config(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    *,
    tied: bool,
    head_dim: int = 128,
    vocab_size: int = 151936,
    max_position_embeddings: int = 40960,
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_position_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
    }


PRESETS = {
    # 1.3 million parameters with the vocabulary given, which a run's tokenizer replaces.
    "tiny": _config(128, 384, 4, 4, 2, tied=True, head_dim=32, vocab_size=4096, max_position_embeddings=1024),
    # https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json
    "0.6b": _config(1024, 3072, 28, 16, 8, tied=True),
    # https://huggingface.co/Qwen/Qwen3-1.7B/blob/main/config.json
    "1.7b": _config(2048, 6144, 28, 16, 8, tied=True),
    # https://huggingface.co/Qwen/Qwen3-4B/blob/main/config.json
    "4b": _config(2560, 9728, 36, 32, 8, tied=True),
    # https://huggingface.co/Qwen/Qwen3-8B/blob/main/config.json
    "8b": _config(4096, 12288, 36, 32, 8, tied=False),
    # https://huggingface.co/Qwen/Qwen3-14B/blob/main/config.json
    "14b": _config(5120, 17408, 40, 40, 8, tied=False),
    # https://huggingface.co/Qwen/Qwen3-32B/blob/main/config.json
    "32b": _config(5120, 25600, 64, 64, 8, tied=False),
}

FAMILY = ModelFamily(
    name="qwen3",
    model_types=("qwen3",),
    presets=PRESETS,
    megatron_config="nemo_ext.models.qwen3.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.qwen3.model:refuse_unexpressible",
    mapping="nemo_ext.models.qwen3.mapping:mapping",
    free_fields=FREE_FIELDS,
    normal_form=complete,
)
