"""Tiny random causal models with a tokenizer trained on the spot, saved as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = [
    "Sa simula ay isang maliit na sibol lamang ang puno ng narra.",
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Ñandú, Ōsaka, kūrá: accents; and an emoji 🌱 too.",
    "def grow(seed: int) -> int:\n    return seed + 1\n",
    "Bayan ko, lupang hinirang: ang bayan ay bayan ng lahat. " * 12,
]


def train_tokenizer(vocab_size: int = 400, with_bos: bool = False) -> Any:
    """Byte-level BPE with `<|endoftext|>` as EOS (and `<|bos|>` as BOS, if wanted)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", *(["<|bos|>"] if with_bos else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], bos_token=special[1] if with_bos else None)


def save_tiny_qwen2(
    folder: Path, *, vocab_size: int = 400, context: int = 32, seed: int = 0, with_bos: bool = False, spread: float = 0.2, tied: bool = True
) -> Path:
    """A two-layer Qwen2 of width 32 whose weights have standard deviation `spread`, so that its predictions are far from uniform."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = train_tokenizer(vocab_size, with_bos)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=spread,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_gpt2(folder: Path, *, context: int = 32, seed: int = 0, spread: float = 0.2, tied: bool = True) -> Path:
    """A two-layer GPT-2 of width 32, which has learned positions."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = train_tokenizer()
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    shape = {"n_positions": context, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": end, "eos_token_id": end}
    config = GPT2Config(vocab_size=len(tokenizer), initializer_range=spread, tie_word_embeddings=tied, **shape)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` work on the tensors of model.safetensors."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
