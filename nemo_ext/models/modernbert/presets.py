"""Sizes of ModernBERT, as fields of its Hugging Face config, and the family's registry entry. No torch.

`tiny` is ours, for tests; the others are the published sizes, from the `config.json` at the address beside each. Token ids
belong to the tokenizer, dtypes to the run, and are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.models.family import ModelFamily

# What transformers' ModernBertConfig (4.57) takes for fields that config.json lacks, sizes apart.
DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu",
    "initializer_range": 0.02,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "embedding_dropout": 0.0,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "decoder_bias": True,
    "classifier_bias": False,
    "classifier_activation": "gelu",
    "tie_word_embeddings": True,
}

# Parameters of ModernBertConfig that matter to its classifiers, kernels or initialisation only, and the ids and dtype of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("initializer_cutoff_factor", "classifier_pooling", "classifier_dropout", "deterministic_flash_attn"),
        *("sparse_prediction", "sparse_pred_ignore_index", "reference_compile", "repad_logits_with_grad"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id", "torch_dtype", "dtype"),
    }
)


def normal_form(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every field that matters to Megatron."""
    return {**DEFAULTS, **hf_config}


def _config(
    hidden_size: int, intermediate_size: int, num_hidden_layers: int, num_attention_heads: int, vocab_size: int = 50368, **changes: Any
) -> dict[str, Any]:
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        **DEFAULTS,
        **changes,
    }


PRESETS = {
    # 1.2 million parameters with the vocabulary given, which a run's tokenizer replaces.
    "tiny": _config(128, 192, 4, 4, vocab_size=4096, max_position_embeddings=1024, local_attention=64),
    # https://huggingface.co/answerdotai/ModernBERT-base/blob/main/config.json
    "base": _config(768, 1152, 22, 12),
    # https://huggingface.co/answerdotai/ModernBERT-large/blob/main/config.json
    "large": _config(1024, 2624, 28, 16),
}

FAMILY = ModelFamily(
    name="modernbert",
    model_types=("modernbert",),
    presets=PRESETS,
    megatron_config="nemo_ext.models.modernbert.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.modernbert.model:refuse_unexpressible",
    mapping="nemo_ext.models.modernbert.mapping:mapping",
    free_fields=FREE_FIELDS,
    normal_form=normal_form,
    objective="masked",
)
