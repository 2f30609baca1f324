"""The mapping table that Llama-like decoders share: Qwen, and with its options Llama, Mistral, Qwen3 and Gemma 3.

Only names and shapes; the rules themselves are in `nemo_ext.convert.rules`. Megatron's names are those of its sharded
state dict, in which the norm before a linear layer bears the linear layer's name, as Transformer Engine fuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import ONES, OUTPUT, ZEROS, Rule, concatenated, one, qkv, vocabulary

ATTENTION = "decoder.layers.{i}.self_attention."
MLP = "decoder.layers.{i}.mlp."


def llama_like(
    hf_config: Mapping[str, Any], padded_vocab_size: int, *, qkv_bias: bool = False, query_key_norm: bool = False, prefix: str = "model."
) -> list[Rule]:
    """Rules of a decoder with RMSNorm, rotary positions, grouped queries and a gated MLP.

    qkv_bias: the query, key and value projections have biases (Qwen1.5, Qwen2, Qwen2.5).
    query_key_norm: each head of query and key is normalised (Qwen3, Gemma 3).
    prefix: what stands before the decoder's tensor names in the Hugging Face files.
    """
    hidden, vocab = hf_config["hidden_size"], hf_config["vocab_size"]
    layer = prefix + "layers.{i}."
    rules = [
        vocabulary("embedding.word_embeddings.weight", prefix + "embed_tokens.weight", vocab, padded_vocab_size, (hidden,)),
        *_attention(hf_config, layer + "self_attn.", qkv_bias, query_key_norm),
        *_mlp(hf_config, layer + "mlp."),
        one(ATTENTION + "linear_qkv.layer_norm_weight", layer + "input_layernorm.weight", (hidden,), initial=ONES),
        one(MLP + "linear_fc1.layer_norm_weight", layer + "post_attention_layernorm.weight", (hidden,), initial=ONES),
        one("decoder.final_layernorm.weight", prefix + "norm.weight", (hidden,), initial=ONES),
    ]
    if not hf_config.get("tie_word_embeddings", False):
        rules.append(vocabulary("output_layer.weight", "lm_head.weight", vocab, padded_vocab_size, (hidden,)))
    return rules


def _attention(hf_config: Mapping[str, Any], prefix: str, qkv_bias: bool, query_key_norm: bool) -> list[Rule]:
    hidden, heads = hf_config["hidden_size"], hf_config["num_attention_heads"]
    groups = hf_config.get("num_key_value_heads") or heads
    head_dim = hf_config.get("head_dim") or hidden // heads
    sizes = {"heads": heads, "groups": groups, "head_dim": head_dim}
    rules = [
        qkv(ATTENTION + "linear_qkv.weight", _qkv_names(prefix, "weight"), tail=(hidden,), **sizes),
        one(ATTENTION + "linear_proj.weight", prefix + "o_proj.weight", (hidden, heads * head_dim), initial=OUTPUT),
    ]
    if qkv_bias:
        rules.append(qkv(ATTENTION + "linear_qkv.bias", _qkv_names(prefix, "bias"), initial=ZEROS, **sizes))
    if query_key_norm:
        rules += [
            one(f"{ATTENTION}{kind}_layernorm.weight", f"{prefix}{kind}_norm.weight", (head_dim,), initial=ONES) for kind in ("q", "k")
        ]
    return rules


def _qkv_names(prefix: str, kind: str) -> tuple[str, str, str]:
    return f"{prefix}q_proj.{kind}", f"{prefix}k_proj.{kind}", f"{prefix}v_proj.{kind}"


def _mlp(hf_config: Mapping[str, Any], prefix: str) -> list[Rule]:
    hidden, inner = hf_config["hidden_size"], hf_config["intermediate_size"]
    return [
        concatenated(MLP + "linear_fc1.weight", (prefix + "gate_proj.weight", prefix + "up_proj.weight"), inner, (hidden,)),
        one(MLP + "linear_fc2.weight", prefix + "down_proj.weight", (hidden, inner), initial=OUTPUT),
    ]
