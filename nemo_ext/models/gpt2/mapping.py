"""Hugging Face tensor names <-> Megatron's for GPT-2.

Its linear layers are Conv1D, stored `[in, out]`, transposed to everybody else's; c_attn is query, key and value side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_ext.convert.rules import NORMAL, ONES, OUTPUT, ZEROS, Rule, one, qkv, vocabulary
from nemo_ext.models.decoder_mapping import ATTENTION, MLP

LAYER = "transformer.h.{i}."


def mapping(hf_config: Mapping[str, Any], padded_vocab_size: int) -> list[Rule]:
    """Rules of a GPT-2 model, tied or untied. Source of the names: transformers `modeling_gpt2.py` (4.57)."""
    hidden, vocab = hf_config["n_embd"], hf_config["vocab_size"]
    rules = [
        vocabulary("embedding.word_embeddings.weight", "transformer.wte.weight", vocab, padded_vocab_size, (hidden,)),
        one("embedding.position_embeddings.weight", "transformer.wpe.weight", (hf_config["n_positions"], hidden)),
        *_linears(hidden, hf_config["n_head"], hf_config.get("n_inner") or 4 * hidden),
    ]
    norms = {ATTENTION + "linear_qkv.layer_norm_": LAYER + "ln_1.", MLP + "linear_fc1.layer_norm_": LAYER + "ln_2."}
    for key, name in {**norms, "decoder.final_layernorm.": "transformer.ln_f."}.items():
        rules += [one(key + "weight", name + "weight", (hidden,), initial=ONES), one(key + "bias", name + "bias", (hidden,), initial=ZEROS)]
    if not hf_config.get("tie_word_embeddings", True):
        rules.append(vocabulary("output_layer.weight", "lm_head.weight", vocab, padded_vocab_size, (hidden,)))
    return rules


def _linears(hidden: int, heads: int, inner: int) -> list[Rule]:
    fused: dict[str, Any] = {"heads": heads, "groups": heads, "head_dim": hidden // heads, "starts": (0, hidden, 2 * hidden)}
    weight, bias = LAYER + "attn.c_attn.weight", LAYER + "attn.c_attn.bias"
    rules = [
        qkv(ATTENTION + "linear_qkv.weight", (weight,) * 3, tail=(hidden,), transposed=True, **fused),
        qkv(ATTENTION + "linear_qkv.bias", (bias,) * 3, initial=ZEROS, **fused),
    ]
    for key, name, rows, columns, initial in (
        (ATTENTION + "linear_proj.", LAYER + "attn.c_proj.", hidden, hidden, OUTPUT),
        (MLP + "linear_fc1.", LAYER + "mlp.c_fc.", inner, hidden, NORMAL),
        (MLP + "linear_fc2.", LAYER + "mlp.c_proj.", hidden, inner, OUTPUT),
    ):
        rules.append(one(key + "weight", name + "weight", (rows, columns), initial=initial, transposed=True))
        rules.append(one(key + "bias", name + "bias", (rows,), initial=ZEROS))
    return rules
