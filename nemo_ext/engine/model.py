"""NeMo's LightningModule around a family's model, with a loss that is exact however tokens are spread over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from nemo.collections.llm.gpt.model.base import GPTModel
from nemo.lightning.megatron_parallel import MaskedTokenLossReduction


class TokenLossReduction(MaskedTokenLossReduction):
    """The sum of losses over the number of tokens that have one, of a whole global batch; 0 where there is none.

    NeMo's own gives NaN then. `tokens` is that number for the last batch, fp32 [1]; known on the last pipeline stage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.zeros(1)

    def reduce(self, losses_reduced_per_micro_batch: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Mean loss in nats per token, a scalar, the same on all data parallel ranks."""
        if not losses_reduced_per_micro_batch:  # not the last stage
            self.tokens = torch.zeros(1, device=torch.cuda.current_device())  # this rank's own
            return self.tokens[0].clone()
        total = torch.vstack([micro_batch["loss_sum_and_ub_size"] for micro_batch in losses_reduced_per_micro_batch]).sum(dim=0)
        torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        self.tokens = total[1:]
        return total[0] / total[1].clamp(min=1)


class LanguageModel(GPTModel):
    """A model of any family, as NeMo trains it. It hands on whatever the task gives: GPTModel knows a decoder's arguments only."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._losses = {"training": TokenLossReduction(), "validation": TokenLossReduction()}  # a dict: they are no part of the model

    def forward(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """What the model computes, see its family."""
        return self.module(*arguments, **options)

    @property
    def training_loss_reduction(self) -> TokenLossReduction:
        """How the losses of a training batch become one."""
        return self._losses["training"]

    @property
    def validation_loss_reduction(self) -> TokenLossReduction:
        """How the losses of a validation batch become one."""
        return self._losses["validation"]
