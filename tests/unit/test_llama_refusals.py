"""What Megatron would compute otherwise than transformers' Llama is refused by field and value."""

from __future__ import annotations

from typing import Any

import pytest

from nemo_ext.common.errors import ConversionError
from nemo_ext.models.family import FAMILIES

FAMILY = FAMILIES.get("llama")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_bias", True),
        ("mlp_bias", True),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("hidden_act", "gelu"),
        ("num_key_value_heads", 3),
        ("intermediate_size", None),
    ],
)
def test_what_megatron_would_compute_otherwise_is_refused(field: str, value: Any):
    with pytest.raises(ConversionError, match=field) as caught:
        FAMILY.check({**FAMILY.presets["10m"], field: value})
    assert str(value) in str(caught.value)
