"""The losses of Hugging Face's models on a task's batches, for comparison with Megatron's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def causal_loss(hf_dir: Path, batch: dict[str, Any]) -> float:
    """Mean loss in nats per counted token of transformers' model in fp32, on a batch of `tasks.pretrain`."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True)
    logits = model.eval()(batch["tokens"], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="none")
    mask = batch["loss_mask"].flatten()
    return float((losses.double() * mask).sum() / mask.sum())
