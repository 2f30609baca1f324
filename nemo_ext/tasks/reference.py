"""The losses of Hugging Face's models on a task's batches, for comparison with Megatron's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nemo_ext.tasks.mlm_masking import IGNORED


def causal_loss(hf_dir: Path, batch: dict[str, Any]) -> float:
    """Mean loss in nats per counted token of transformers' model in fp32, on a batch of `tasks.pretrain`."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True)
    logits = model.eval()(batch["tokens"], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="none")
    mask = batch["loss_mask"].flatten()
    return float((losses.double() * mask).sum() / mask.sum())


def masked_loss(hf_dir: Path, batch: dict[str, Any]) -> float:
    """Mean loss in nats per predicted token of transformers' model in fp32, on a padded or packed batch of `tasks.mlm`.

    transformers is given every piece of a packed row as a row of its own, so packing is compared, too.
    """
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(hf_dir, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True).eval()
    total = 0.0
    for tokens, labels in _rows(batch):
        predicted = labels != IGNORED
        if predicted.any():
            logits = model(input_ids=tokens[None], attention_mask=torch.ones_like(tokens)[None]).logits[0, predicted]
            total += float(torch.nn.functional.cross_entropy(logits, labels[predicted], reduction="none").double().sum())
    return total / float(batch["loss_mask"].sum())


def _rows(batch: dict[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and labels `[tokens]` of each piece, without padding."""
    tokens, labels = batch["tokens"], batch["labels"]
    if "cu_seqlens" in batch:
        sizes = batch["cu_seqlens"].diff().tolist()
        length = sum(sizes)
        yield from zip(tokens[0, :length].split(sizes), labels[0, :length].split(sizes), strict=True)
    else:
        for row, mask in enumerate(batch["attention_mask"]):
            yield tokens[row, mask], labels[row, mask]
