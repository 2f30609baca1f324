"""Sizes of the Qwen2 architecture, as fields of its Hugging Face config, and the family's registry entry. No torch.

`tiny`, `mini` and `100m` are ours, for tests, demonstrations and small studies; the others are the published sizes, from
the `config.json` at the address beside each. Token ids belong to the tokenizer, dtypes to the run, and are not here.
"""

from __future__ import annotations

from typing import Any

from nemo_ext.models.family import ModelFamily

# Parameters of transformers' Qwen2Config (4.57) that the presets leave at their default, and the ids and dtype of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("attention_dropout", "rope_scaling", "layer_types", "sliding_window", "max_window_layers", "use_cache", "head_dim"),
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
    *,
    tied: bool,
    rms_norm_eps: float = 1e-6,
    rope_theta: float = 1_000_000.0,
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_position_embeddings,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": rms_norm_eps,
        "rope_theta": rope_theta,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
    }


PRESETS = {
    # 1.3, 9.9 and 100 million parameters with the vocabularies given, which a run's tokenizer replaces.
    "tiny": _config(128, 384, 4, 4, 2, 4096, 1024, tied=True, rope_theta=10_000.0),
    "mini": _config(256, 704, 12, 4, 2, 4096, 2048, tied=True, rope_theta=10_000.0),
    "100m": _config(768, 2048, 12, 12, 4, 32000, 4096, tied=True, rope_theta=10_000.0),
    # https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json
    "0.5b": _config(896, 4864, 24, 14, 2, 151936, 32768, tied=True),
    # https://huggingface.co/Qwen/Qwen2.5-1.5B/blob/main/config.json
    "1.5b": _config(1536, 8960, 28, 12, 2, 151936, 131072, tied=True),
    # https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/config.json
    "3b": _config(2048, 11008, 36, 16, 2, 151936, 32768, tied=True),
    # https://huggingface.co/Qwen/Qwen2.5-7B/blob/main/config.json
    "7b": _config(3584, 18944, 28, 28, 4, 152064, 131072, tied=False),
    # https://huggingface.co/Qwen/Qwen2.5-14B/blob/main/config.json
    "14b": _config(5120, 13824, 48, 40, 8, 152064, 131072, tied=False, rms_norm_eps=1e-5),
    # https://huggingface.co/Qwen/Qwen2.5-32B/blob/main/config.json
    "32b": _config(5120, 27648, 64, 40, 8, 152064, 131072, tied=False, rms_norm_eps=1e-5),
    # https://huggingface.co/Qwen/Qwen2.5-72B/blob/main/config.json
    "72b": _config(8192, 29568, 80, 64, 8, 152064, 131072, tied=False, rms_norm_eps=1e-5),
    # https://huggingface.co/Qwen/Qwen1.5-72B/blob/main/config.json: every head has its own keys and values
    "qwen1.5-72b": _config(8192, 24576, 80, 64, 64, 152064, 32768, tied=False),
}

FAMILY = ModelFamily(
    name="qwen2",
    model_types=("qwen2",),
    presets=PRESETS,
    megatron_config="nemo_ext.models.qwen2.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.qwen2.model:refuse_unexpressible",
    mapping="nemo_ext.models.qwen2.mapping:mapping",
    free_fields=FREE_FIELDS,
)
