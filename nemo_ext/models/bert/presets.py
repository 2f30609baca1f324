"""Sizes of BERT, as fields of its Hugging Face config, and the family's registry entry. No torch.

`tiny` is ours, for tests; the others are the published sizes, from the `config.json` at the address beside each. Token ids
belong to the tokenizer, dtypes to the run, and are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.models.family import ModelFamily

MASKED, PRETRAINING = ARCHITECTURES = ("BertForMaskedLM", "BertForPreTraining")

# What transformers' BertConfig (4.57) takes for fields that config.json lacks, sizes apart.
DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}

# Parameters of BertConfig that matter to its classifiers only, and the ids, dtype and tying of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("use_cache", "classifier_dropout", "tie_word_embeddings"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
    }
)


def normal_form(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every field that matters to Megatron."""
    return {**DEFAULTS, **hf_config}


def carries_pooler(hf_config: Mapping[str, Any]) -> bool:
    """Whether pooler and next-sentence head belong to the model. Training for masked tokens leaves them as they are."""
    return list(hf_config.get("architectures") or []) == [PRETRAINING]


def _config(
    hidden_size: int, num_hidden_layers: int, num_attention_heads: int, intermediate_size: int, vocab_size: int = 30522, **changes: Any
) -> dict[str, Any]:
    return {
        "architectures": [MASKED],
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": intermediate_size,
        **DEFAULTS,
        **changes,
    }


WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

PRESETS = {
    # 1.3 million parameters with the vocabulary given, which a run's tokenizer replaces.
    "tiny": _config(128, 4, 4, 512, vocab_size=4096, **WITHOUT_DROPOUT),
    # https://huggingface.co/google-bert/bert-base-uncased/blob/main/config.json
    "base": _config(768, 12, 12, 3072),
    # https://huggingface.co/google-bert/bert-large-uncased/blob/main/config.json
    "large": _config(1024, 24, 16, 4096),
}

FAMILY = ModelFamily(
    name="bert",
    model_types=("bert",),
    presets=PRESETS,
    megatron_config="nemo_ext.models.bert.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.bert.model:refuse_unexpressible",
    mapping="nemo_ext.models.bert.mapping:mapping",
    free_fields=FREE_FIELDS,
    normal_form=normal_form,
    objective="masked",
)
