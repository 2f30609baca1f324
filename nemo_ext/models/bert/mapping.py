"""Hugging Face tensor names <-> Megatron's for BERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import NORMAL, ZEROS, Rule, one, qkv, vocabulary
from nemo_ext.models.bert.presets import carries_pooler
from nemo_ext.models.encoder_mapping import ATTENTION, EMBEDDING_NORM, HEAD_DENSE, HEAD_NORM, MLP, linear, norm

EMBEDDINGS, LAYER, HEAD = "bert.embeddings.", "bert.encoder.layer.{i}.", "cls.predictions."


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a BERT model with its head for masked tokens and, if `architectures` says so, the pooler and the next-sentence head.

    Source of the names: transformers `modeling_bert.py` (4.57), classes BertForMaskedLM and BertForPreTraining.
    """
    hidden, inner, vocab = hf_config["hidden_size"], hf_config["intermediate_size"], hf_config["vocab_size"]
    every: dict[str, Any] = {"initial": NORMAL, "bias": True}
    positions, types = hf_config["max_position_embeddings"], hf_config["type_vocab_size"]
    rules = [
        vocabulary("embedding.word_embeddings.weight", EMBEDDINGS + "word_embeddings.weight", vocab, padded_vocab_size, (hidden,)),
        one("embedding.position_embeddings.weight", EMBEDDINGS + "position_embeddings.weight", (positions, hidden)),
        one("embedding.tokentype_embeddings.weight", EMBEDDINGS + "token_type_embeddings.weight", (types, hidden)),
        *norm(EMBEDDING_NORM, EMBEDDINGS + "LayerNorm.", hidden, bias=True),
        *_query_key_value(hidden, hf_config["num_attention_heads"]),
        *linear(ATTENTION + "linear_proj.", LAYER + "attention.output.dense.", hidden, hidden, **every),
        *norm(ATTENTION + "linear_proj.post_layernorm.", LAYER + "attention.output.LayerNorm.", hidden, bias=True),
        *linear(MLP + "linear_fc1.", LAYER + "intermediate.dense.", inner, hidden, **every),
        *linear(MLP + "linear_fc2.", LAYER + "output.dense.", hidden, inner, **every),
        *norm(MLP + "linear_fc2.post_layernorm.", LAYER + "output.LayerNorm.", hidden, bias=True),
        *linear(HEAD_DENSE, HEAD + "transform.dense.", hidden, hidden, **every),
        *norm(HEAD_NORM, HEAD + "transform.LayerNorm.", hidden, bias=True),
        vocabulary("output_layer.bias", HEAD + "bias", vocab, padded_vocab_size, initial=ZEROS),
    ]
    if carries_pooler(hf_config):
        rules += linear("pooler.", "bert.pooler.dense.", hidden, hidden, **every)
        rules += linear("next_sentence.", "cls.seq_relationship.", 2, hidden, **every)
    return rules


def _query_key_value(hidden: int, heads: int) -> list[Rule]:
    query, key, value = (f"{LAYER}attention.self.{name}." for name in ("query", "key", "value"))
    sizes: dict[str, Any] = {"heads": heads, "groups": heads, "head_dim": hidden // heads}
    return [
        qkv(ATTENTION + "linear_qkv.weight", (query + "weight", key + "weight", value + "weight"), tail=(hidden,), **sizes),
        qkv(ATTENTION + "linear_qkv.bias", (query + "bias", key + "bias", value + "bias"), initial=ZEROS, **sizes),
    ]
