"""Sizes of the Gemma 3 architecture, as fields of its Hugging Face config, and the family's registry entry. No torch.

`tiny` is ours, for tests; the others are the published sizes, of the multimodal ones the text part, from the `config.json`
at the address beside each. Token ids belong to the tokenizer, dtypes to the run, and are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.models.family import ModelFamily

LOCAL, GLOBAL = "sliding_attention", "full_attention"

# What transformers' Gemma3TextConfig (4.57) takes for fields that config.json lacks; those of the 4B and larger lack most.
DEFAULTS: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "rope_scaling": None,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}

# Parameters of Gemma3TextConfig that the presets leave at their default, and the ids and dtype of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("attention_bias", "attention_dropout", "attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"),
        *("layer_types", "sliding_window_pattern", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
    }
)


def normal_form(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma 3's text config with every field that matters, `layer_types` included, from a text or a multimodal config."""
    config = dict(hf_config)
    if config.get("model_type") == "gemma3":
        config = {**config.get("text_config", {}), "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
    config = {**DEFAULTS, **config}
    pattern = config.pop("sliding_window_pattern")
    if not config.get("layer_types"):
        config["layer_types"] = [LOCAL if (i + 1) % pattern else GLOBAL for i in range(config["num_hidden_layers"])]
    return config


def _config(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    **changes: Any,
) -> dict[str, Any]:
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **{name: value for name, value in DEFAULTS.items() if name != "sliding_window_pattern"},
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        **changes,
    }


SMALL = {"vocab_size": 262144, "max_position_embeddings": 32768, "sliding_window": 512}
LARGE = {"sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}

PRESETS = {
    # 1.3 million parameters with the vocabulary given, which a run's tokenizer replaces.
    "tiny": _config(
        128, 384, 4, 4, 2, vocab_size=4096, head_dim=32, query_pre_attn_scalar=32, max_position_embeddings=1024, sliding_window=64
    ),
    # https://huggingface.co/google/gemma-3-270m/blob/main/config.json
    "270m": _config(640, 2048, 18, 4, 1, **SMALL),
    # https://huggingface.co/google/gemma-3-1b-pt/blob/main/config.json
    "1b": _config(1152, 6912, 26, 4, 1, **SMALL),
    # https://huggingface.co/google/gemma-3-4b-pt/blob/main/config.json
    "4b": _config(2560, 10240, 34, 8, 4, **LARGE),
    # https://huggingface.co/google/gemma-3-12b-pt/blob/main/config.json
    "12b": _config(3840, 15360, 48, 16, 8, **LARGE),
    # https://huggingface.co/google/gemma-3-27b-pt/blob/main/config.json
    "27b": _config(5376, 21504, 62, 32, 16, head_dim=128, query_pre_attn_scalar=168, **LARGE),
}

FAMILY = ModelFamily(
    name="gemma3",
    model_types=("gemma3_text", "gemma3"),
    presets=PRESETS,
    megatron_config="nemo_ext.models.gemma3.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.gemma3.model:refuse_unexpressible",
    mapping="nemo_ext.models.gemma3.mapping:mapping",
    free_fields=FREE_FIELDS,
    normal_form=normal_form,
)
