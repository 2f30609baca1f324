"""A transformers model as batches of token ids in, logits out: padding, memory, and log-probabilities of chosen tokens.

What the numbers mean is the business of `evaluation.models`, `evaluation.generation` and `evaluation.masked`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.windows import IntArray
from nemo_ext.common.errors import ConfigError

CHUNK_BYTES = 64 << 20  # fp32 logits whose log-sum-exp is taken in one step
# Logits of one batch; a single long row may exceed it. On a CPU small batches are faster, because they stay in the caches
# (a model of 6 layers, width 256, vocabulary 4,096: 2,700 tokens/s of one core with 32 MiB, 2,200 with 256 MiB).
LOGIT_BYTES = {"cpu": 32 << 20, "cuda": 2 << 30}
WIDENING = 4  # of a layer's feed-forward part
Advance = Callable[[float], None]  # told the UTF-8 bytes of text scored since the last call
# Log-likelihood in nats; rank: 1 where no token was likelier, else 1 + how many were, or 2 where only the first rank matters.
Scores = tuple[npt.NDArray[np.float64], IntArray]


class Network:
    """A loaded model on its device. `vocab_size` is the number of outcomes, `max_positions` what fits a batch, padding included."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = model.device
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        # Where the vocabulary is small, as of bytes, what a layer computes on the way takes more memory than the logits.
        widest = max(self.vocab_size, WIDENING * getattr(model.config.get_text_config(), "hidden_size", 0))
        self.max_positions = LOGIT_BYTES["cpu" if self.device.type == "cpu" else "cuda"] // (4 * widest)
        self._parameters = frozenset(inspect.signature(model.forward).parameters)

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor, use_cache: bool = False, **options: Any) -> Any:
        """The model's output for `[rows, tokens]`; of `options`, those that its architecture takes.

        Not every architecture takes `logits_to_keep` and `position_ids`: the former only spares work, and what lacks the latter
        derives positions from the mask. Raises ConfigError where no memory is left.
        """
        taken = {name: value for name, value in options.items() if name in self._parameters}
        arguments = {"input_ids": inputs.to(self.device), "attention_mask": mask.to(self.device), **taken}
        if "use_cache" in self._parameters:
            arguments["use_cache"] = use_cache
        try:
            return self.model(**arguments)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"No memory left on {self.device} for a batch of {inputs.shape[0]} rows of {mask.shape[1]} tokens ({error}). "
                "Choose a smaller --batch-size or --context."
            ) from None

    def gather(self, logits: torch.Tensor, *places: IntArray, ranked: bool = False) -> Scores:
        """Log-probability of each target token (rows, columns, targets) and its rank, which takes longer to count than to compare."""
        rows, columns, targets = (torch.from_numpy(place).to(self.device) for place in places)
        scores, ranks = [], []
        positions = max(1, CHUNK_BYTES // (4 * self.vocab_size))
        for start in range(0, len(rows), positions):
            part = slice(start, start + positions)
            chosen = logits[rows[part], columns[part]].float()
            of_target = chosen.gather(1, targets[part, None])[:, 0]
            scores.append((of_target - chosen.logsumexp(-1)).double().cpu())
            likelier = (chosen > of_target[:, None]).sum(-1) if ranked else (chosen.amax(-1) > of_target).long()
            ranks.append(likelier.cpu() + 1)
        return torch.cat(scores).numpy(), torch.cat(ranks).numpy()


def padded(rows: Sequence[IntArray], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask `[rows, longest]` int64, padded with token 0 on the right or on the left."""
    longest = max(map(len, rows))
    inputs, mask = np.zeros((2, len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        part = slice(longest - len(row), None) if left else slice(len(row))
        inputs[number, part], mask[number, part] = row, 1
    return torch.from_numpy(inputs), torch.from_numpy(mask)
