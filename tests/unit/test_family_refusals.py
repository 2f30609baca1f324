"""What Megatron would compute otherwise than transformers is refused by field and value."""

from __future__ import annotations

from typing import Any

import pytest

from nemo_ext.common.errors import ConversionError
from nemo_ext.models.family import FAMILIES

REFUSED: dict[str, list[tuple[str, Any]]] = {
    "llama": [
        ("attention_bias", True),
        ("mlp_bias", True),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("hidden_act", "gelu"),
        ("num_key_value_heads", 3),
        ("intermediate_size", None),
    ],
    "gemma3": [
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("use_bidirectional_attention", True),
        ("hidden_activation", "gelu"),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_parameters", {"full_attention": {"rope_theta": 5.0}}),
        ("layer_types", ["full_attention"] * 3),
        ("layer_types", ["chunked_attention"] * 4),
        ("sliding_window", None),
    ],
    "bert": [
        ("position_embedding_type", "relative_key"),
        ("hidden_act", "relu"),
        ("is_decoder", True),
        ("tie_word_embeddings", False),
        ("architectures", ["BertModel"]),
        ("num_attention_heads", 3),
        ("type_vocab_size", 0),
    ],
    "modernbert": [
        ("norm_bias", True),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("classifier_bias", True),
        ("decoder_bias", False),
        ("mlp_dropout", 0.1),
        ("attention_dropout", 0.1),
        ("embedding_dropout", 0.1),
        ("hidden_activation", "silu"),
        ("classifier_activation", "relu"),
        ("tie_word_embeddings", False),
        ("rope_scaling", {"rope_type": "linear", "factor": 4.0}),
        ("rope_parameters", {"full_attention": {"rope_theta": 5.0}}),
        ("layer_types", ["full_attention"] * 4),
        ("local_attention", 0),
        ("global_attn_every_n_layers", 0),
        ("num_attention_heads", 3),
        ("num_attention_heads", 128),
        ("architectures", ["ModernBertForSequenceClassification"]),
    ],
    "qwen3": [
        ("attention_bias", True),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("layer_types", ["sliding_attention"] * 4),
        ("use_sliding_window", True),
        ("quantization_config", {"quant_method": "fp8"}),
    ],
}


@pytest.mark.parametrize(("family", "field", "value"), [(family, *case) for family, cases in REFUSED.items() for case in cases])
def test_what_megatron_would_compute_otherwise_is_refused(family: str, field: str, value: Any):
    config = next(iter(FAMILIES.get(family).presets.values()))
    with pytest.raises(ConversionError, match=field) as caught:
        FAMILIES.get(family).check({**config, field: value})
    assert str(value) in str(caught.value)
