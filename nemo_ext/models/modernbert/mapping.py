"""Hugging Face tensor names <-> Megatron's for ModernBERT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nemo_ext.convert.rules import NORMAL, OUTPUT, ZEROS, Rule, one, qkv, vocabulary
from nemo_ext.models.encoder_mapping import ATTENTION, EMBEDDING_NORM, HEAD_DENSE, HEAD_NORM, MLP, linear, norm

LAYER = "model.layers.{i}."


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a ModernBERT model with its prediction head; the first layer has no norm before its attention.

    Source of the names: transformers `modeling_modernbert.py` (4.57), class ModernBertForMaskedLM.
    """
    hidden, inner, vocab = hf_config["hidden_size"], hf_config["intermediate_size"], hf_config["vocab_size"]
    heads = hf_config["num_attention_heads"]
    sizes: dict[str, Any] = {"heads": heads, "groups": heads, "head_dim": hidden // heads, "starts": (0, hidden, 2 * hidden)}
    attention_norm = norm(ATTENTION + "linear_qkv.layer_norm_", LAYER + "attn_norm.", hidden, bias=False)
    return [
        vocabulary("embedding.word_embeddings.weight", "model.embeddings.tok_embeddings.weight", vocab, padded_vocab_size, (hidden,)),
        *norm(EMBEDDING_NORM, "model.embeddings.norm.", hidden, bias=False),
        *(replace(rule, layers=_is_not_first) for rule in attention_norm),
        qkv(ATTENTION + "linear_qkv.weight", (LAYER + "attn.Wqkv.weight",) * 3, tail=(hidden,), **sizes),
        one(ATTENTION + "linear_proj.weight", LAYER + "attn.Wo.weight", (hidden, hidden), initial=OUTPUT),
        *norm(MLP + "linear_fc1.layer_norm_", LAYER + "mlp_norm.", hidden, bias=False),
        one(MLP + "linear_fc1.weight", LAYER + "mlp.Wi.weight", (2 * inner, hidden), initial=NORMAL),
        one(MLP + "linear_fc2.weight", LAYER + "mlp.Wo.weight", (hidden, inner), initial=OUTPUT),
        *norm("encoder.final_layernorm.", "model.final_norm.", hidden, bias=False),
        *linear(HEAD_DENSE, "head.dense.", hidden, hidden, initial=OUTPUT, bias=False),
        *norm(HEAD_NORM, "head.norm.", hidden, bias=False),
        vocabulary("output_layer.bias", "decoder.bias", vocab, padded_vocab_size, initial=ZEROS),
    ]


def _is_not_first(layer: int) -> bool:
    return layer > 0
