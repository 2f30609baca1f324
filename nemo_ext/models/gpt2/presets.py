"""Sizes of GPT-2, as fields of its Hugging Face config, and the family's registry entry. No torch.

`tiny` is ours; the others are the published sizes, from the `config.json` at the address beside each.
"""

from __future__ import annotations

from typing import Any

from nemo_ext.models.family import ModelFamily

# Parameters of transformers' GPT2Config (4.57) that the presets leave at their default, and the ids and dtype of PretrainedConfig.
FREE_FIELDS = frozenset(
    {
        *("n_inner", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "use_cache"),
        *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype", "tie_word_embeddings"),
    }
)


def _config(
    n_embd: int, n_layer: int, n_head: int, vocab_size: int = 50257, n_positions: int = 1024, dropout: float = 0.1
) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_positions": n_positions,
        "n_embd": n_embd,
        "n_layer": n_layer,
        "n_head": n_head,
        "activation_function": "gelu_new",
        "attn_pdrop": dropout,
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
    }


PRESETS = {
    "tiny": _config(128, 4, 4, vocab_size=4096, dropout=0.0),
    # https://huggingface.co/openai-community/gpt2/blob/main/config.json
    "gpt2": _config(768, 12, 12),
    # https://huggingface.co/openai-community/gpt2-medium/blob/main/config.json
    "medium": _config(1024, 24, 16),
    # https://huggingface.co/openai-community/gpt2-large/blob/main/config.json
    "large": _config(1280, 36, 20),
    # https://huggingface.co/openai-community/gpt2-xl/blob/main/config.json
    "xl": _config(1600, 48, 25),
}

FAMILY = ModelFamily(
    name="gpt2",
    model_types=("gpt2",),
    presets=PRESETS,
    megatron_config="nemo_ext.models.gpt2.model:megatron_config",
    refuse_unexpressible="nemo_ext.models.gpt2.model:refuse_unexpressible",
    mapping="nemo_ext.models.gpt2.mapping:mapping",
    free_fields=FREE_FIELDS,
)
