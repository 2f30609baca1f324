"""Tiny random models whose every detail shows: norms away from 1, biases away from 0, a vocabulary that needs padding.

The functions that build Megatron models run on a rank (see `ranks`); the Hugging Face ones anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# 203 tokens are not a multiple of 128; 8 layers split over pipeline stages; 2 key/value heads over 2 tensor parallel ranks.
QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 203,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "initializer_range": 0.05,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}
# Like the real ones, with heads that are wider than hidden size / heads.
QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 203,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "initializer_range": 0.05,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}

# Windows of 8 in two of three layers, a softmax scale that is not 1 / sqrt(head size), a scaled global rotary embedding.
GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "vocab_size": 203,
    "hidden_size": 72,
    "intermediate_size": 112,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "max_position_embeddings": 128,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.05,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    "query_pre_attn_scalar": 28,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "tie_word_embeddings": True,
    "pad_token_id": None,
}

# The same difficulties, no two sizes alike, and heads that together are wider than the hidden size.
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 203,
    "hidden_size": 80,
    "intermediate_size": 144,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "max_position_embeddings": 96,
    "hidden_act": "silu",
    "initializer_range": 0.05,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "tie_word_embeddings": True,
}

# Learned positions, LayerNorm with bias, Conv1D. Dropout off, or a training step could not be compared.
GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 203,
    "n_positions": 72,
    "n_embd": 96,
    "n_inner": 160,
    "n_layer": 4,
    "n_head": 6,
    "activation_function": "gelu_new",
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "initializer_range": 0.05,
    "layer_norm_epsilon": 1e-5,
}

# Windows of 4 on either side in layers 1 and 2, another head activation than the layers', weights so large that this shows.
MODERNBERT: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"],
    "model_type": "modernbert",
    "vocab_size": 203,
    "hidden_size": 84,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "max_position_embeddings": 96,
    "hidden_activation": "gelu",
    "classifier_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.15,
    "norm_eps": 1e-5,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "global_attn_every_n_layers": 3,
    "local_attention": 8,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}

# Three token types, so that one is neither all nor the rest. Dropout off, or a training step could not be compared.
BERT: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "vocab_size": 203,
    "hidden_size": 72,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "type_vocab_size": 3,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.05,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def random_hf_model(hf_config: Mapping[str, Any], seed: int = 0) -> Any:
    """A transformers language model in fp32 with eager attention; every parameter is random, norms around 1."""
    import torch
    import transformers

    from nemo_ext.convert.verify import AUTO_CLASSES
    from nemo_ext.models.family import family_of

    auto_class = getattr(transformers, AUTO_CLASSES[family_of(hf_config).objective])
    config = transformers.AutoConfig.for_model(**hf_config)
    torch.manual_seed(seed)
    model = auto_class.from_config(config, attn_implementation="eager", torch_dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(parameter.mean().item(), 0.2)  # norms and biases, around what they start at
    return model


def write_random_hf_model(folder: Path | str, hf_config: Mapping[str, Any], seed: int = 0) -> Any:
    """Write a random model to `folder` as Hugging Face does, and return it."""
    model = random_hf_model(hf_config, seed)
    model.save_pretrained(folder)
    return model


def start_megatron(tp: int = 1, pp: int = 1, seed: int = 1) -> None:
    """Initialise Megatron's parallel state and random states on this rank."""
    from megatron.core import parallel_state, tensor_parallel

    parallel_state.initialize_model_parallel(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)


def build_model(hf_config: Mapping[str, Any], tp: int = 1, pp: int = 1, **megatron_fields: Any) -> Any:
    """This rank's part of the Megatron model of a Hugging Face config, in fp32 unless told otherwise."""
    import torch

    from nemo_ext.models.family import family_of

    fields = {"params_dtype": torch.float32, "pipeline_dtype": torch.float32, **megatron_fields}
    config = family_of(hf_config).build_megatron_config(hf_config, tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, **fields)
    return config.configure_model()


def token_batch(hf_config: Mapping[str, Any], batch: int = 4, length: int = 48, seed: int = 7) -> Any:
    """Random token ids `[batch, length]` below the true vocabulary size."""
    import torch

    return torch.randint(0, hf_config["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))
