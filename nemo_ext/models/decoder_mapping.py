"""The mapping table that Llama-like decoders share: Qwen, and with its options Llama, Mistral, Qwen3 and Gemma 3.

Only names and shapes; the rules themselves are in `nemo_ext.convert.rules`. Megatron's names are those of its sharded
state dict, in which the norm before a linear layer bears the linear layer's name, as Transformer Engine fuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import NORMAL, ONES, OUTPUT, ZEROS, Rule, concatenated, one, qkv, vocabulary

ATTENTION = "decoder.layers.{i}.self_attention."
MLP = "decoder.layers.{i}.mlp."


def llama_like(
    hf_config: Mapping[str, Any],
    padded_vocab_size: int,
    *,
    qkv_bias: bool = False,
    query_key_norm: bool = False,
    gemma_norms: bool = False,
    prefix: str = "model.",
) -> list[Rule]:
    """Rules of a decoder with RMSNorm, rotary positions, grouped queries and a gated MLP.

    qkv_bias: the query, key and value projections have biases (Qwen1.5, Qwen2, Qwen2.5).
    query_key_norm: each head of query and key is normalised (Qwen3, Gemma 3).
    gemma_norms: there are norms after attention and MLP, too, and all norms hold the distance from 1 (Gemma 3).
    prefix: what stands before the decoder's tensor names in the Hugging Face files.
    """
    hidden, vocab = hf_config["hidden_size"], hf_config["vocab_size"]
    layer, norm = prefix + "layers.{i}.", ZEROS if gemma_norms else ONES
    before_mlp = "pre_feedforward_layernorm" if gemma_norms else "post_attention_layernorm"
    rules = [
        vocabulary("embedding.word_embeddings.weight", prefix + "embed_tokens.weight", vocab, padded_vocab_size, (hidden,)),
        *_attention(hf_config, layer + "self_attn.", qkv_bias),
        *_mlp(hf_config, layer + "mlp."),
        one(ATTENTION + "linear_qkv.layer_norm_weight", layer + "input_layernorm.weight", (hidden,), initial=norm),
        one(MLP + "linear_fc1.layer_norm_weight", f"{layer}{before_mlp}.weight", (hidden,), initial=norm),
        one("decoder.final_layernorm.weight", prefix + "norm.weight", (hidden,), initial=norm),
    ]
    if query_key_norm:
        names = {f"{ATTENTION}{kind}_layernorm.weight": f"{layer}self_attn.{kind}_norm.weight" for kind in ("q", "k")}
        rules += [one(key, name, (_heads(hf_config)["head_dim"],), initial=norm) for key, name in names.items()]
    if gemma_norms:
        rules += [
            one(ATTENTION + "linear_proj.post_layernorm.weight", layer + "post_attention_layernorm.weight", (hidden,), initial=norm),
            one(MLP + "linear_fc2.post_layernorm.weight", layer + "post_feedforward_layernorm.weight", (hidden,), initial=norm),
        ]
    if not hf_config.get("tie_word_embeddings", False):
        rules.append(vocabulary("output_layer.weight", "lm_head.weight", vocab, padded_vocab_size, (hidden,)))
    return rules


def _heads(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    heads = hf_config["num_attention_heads"]
    head_dim = hf_config.get("head_dim") or hf_config["hidden_size"] // heads
    return {"heads": heads, "groups": hf_config.get("num_key_value_heads") or heads, "head_dim": head_dim}


def _attention(hf_config: Mapping[str, Any], prefix: str, qkv_bias: bool) -> list[Rule]:
    hidden, sizes = hf_config["hidden_size"], _heads(hf_config)
    query_size = sizes["heads"] * sizes["head_dim"]
    rules = [
        _query_key_value(prefix, "weight", sizes, (hidden,), NORMAL),
        one(ATTENTION + "linear_proj.weight", prefix + "o_proj.weight", (hidden, query_size), initial=OUTPUT),
    ]
    if qkv_bias:
        rules.append(_query_key_value(prefix, "bias", sizes, (), ZEROS))
    return rules


def _query_key_value(prefix: str, kind: str, sizes: dict[str, Any], tail: tuple[int, ...], initial: str) -> Rule:
    query, key, value = (f"{prefix}{name}_proj.{kind}" for name in "qkv")
    return qkv(f"{ATTENTION}linear_qkv.{kind}", (query, key, value), tail=tail, initial=initial, **sizes)


def _mlp(hf_config: Mapping[str, Any], prefix: str) -> list[Rule]:
    hidden, inner = hf_config["hidden_size"], hf_config["intermediate_size"]
    return [
        concatenated(MLP + "linear_fc1.weight", (prefix + "gate_proj.weight", prefix + "up_proj.weight"), inner, (hidden,)),
        one(MLP + "linear_fc2.weight", prefix + "down_proj.weight", (hidden, inner), initial=OUTPUT),
    ]
