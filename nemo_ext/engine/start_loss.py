"""The loss of a built model on one micro batch, under any layout, without a step being taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func

from nemo_ext.tasks.task import Task


def megatron_loss(trainer: pl.Trainer, task: Task, batch: dict[str, Any]) -> tuple[float, int]:
    """Mean loss in nats per counted token, and their number, of a micro batch `[micro batch, seq]` that all ranks have. No dropout.

    Every rank must call it, with the same batch; all get the same answer.
    """
    modules = list(trainer.strategy.megatron_parallel)
    data: Any = [iter([batch]) for _ in modules] if len(modules) > 1 else iter([batch])
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    with torch.no_grad():
        found = get_forward_backward_func()(
            forward_step_func=_forward(task),
            data_iterator=data,
            model=modules if len(modules) > 1 else modules[0],
            num_microbatches=1,
            seq_length=trainer.datamodule.data_sampler.seq_len,
            micro_batch_size=trainer.datamodule.data_sampler.micro_batch_size,
            forward_only=True,
        )
    for module, training in zip(modules, was_training, strict=True):
        module.train(training)
    sums = found[0] if found else None
    if sums is not None:
        dist.all_reduce(sums, group=parallel_state.get_context_parallel_group())
    answers: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(answers, None if sums is None else sums.tolist())
    loss, tokens = next(answer for answer in answers if answer is not None)
    return loss / tokens, int(tokens)


def _forward(task: Task) -> Callable[[Iterator[Any], Any], tuple[Any, Any]]:
    """Megatron's forward step: the task's, with the sum of its losses and the number of counted tokens as the result `[2]` fp64."""
    data_step, forward_step = task.step_functions()

    def forward(iterator: Iterator[Any], model: Any) -> tuple[Any, Any]:
        batch = data_step(iterator)

        def reduce(losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mask = batch["loss_mask"].double()
            sums = torch.stack([(losses.double() * mask).sum(), mask.sum()])
            return sums.sum(), sums

        return forward_step(model, batch), reduce

    return forward
