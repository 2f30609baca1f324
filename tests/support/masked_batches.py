"""Batches for masked language models: padded, with labels at some of the real tokens, and the same texts packed into one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LENGTHS = (48, 30, 7, 41)  # of four texts; shorter and longer than the tiny models' windows
ROW = 48
PACKED_ROW = 128  # two tokens more than the texts have, so that a pack ends in padding
MASKED_SHARE = 0.3


def masked_batch(hf_config: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """input_ids, position_ids, token_type_ids, labels `[4, 48]` int64, attention_mask bool. Pad is 0; labels are -100 but for some."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), ROW)
    positions = torch.arange(ROW).expand(shape)
    real = positions < torch.tensor(LENGTHS)[:, None]
    tokens, labels = (torch.randint(1, hf_config["vocab_size"], shape, generator=generator) for _ in range(2))
    types = torch.randint(0, hf_config.get("type_vocab_size", 1), shape, generator=generator)
    chosen = real & (torch.rand(shape, generator=generator) < MASKED_SHARE)
    return {
        "input_ids": tokens * real,
        "position_ids": positions.contiguous(),
        "attention_mask": real,
        "token_type_ids": types * real if "type_vocab_size" in hf_config else None,
        "labels": labels.masked_fill(~chosen, -100),
    }


def packed(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of a `masked_batch` end to end in one row of 128 tokens."""
    import torch

    real = batch["attention_mask"]
    fills = {"input_ids": 0, "position_ids": 0, "token_type_ids": 0, "labels": -100}
    rows: dict[str, Any] = {
        name: None
        if batch[name] is None
        else torch.nn.functional.pad(batch[name][real], (0, PACKED_ROW - int(real.sum())), value=fill)[None]
        for name, fill in fills.items()
    }
    lengths = real.sum(dim=1, dtype=torch.int32)
    return {**rows, "attention_mask": None, "cu_seqlens": torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))}


def halves(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two micro batches."""
    return [{name: None if value is None else value.chunk(2)[half] for name, value in batch.items()} for half in range(2)]


def hugging_face_arguments(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a transformers model takes of a batch."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: batch[name] for name in names if batch[name] is not None}
