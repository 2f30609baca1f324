"""AdamW and its schedule as NeMo and Megatron-Core run them."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from nemo import lightning as nl
from nemo.lightning.pytorch.optim.base import LRSchedulerModule

from nemo_ext.config import RunConfig
from nemo_ext.config.learning_rate import learning_rate


class ScheduleModule(LRSchedulerModule):
    """NeMo's scheduler seam around `nemo_ext.config.learning_rate`."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.run_config = config

    def scheduler(self, model: Any, optimizers: Any) -> dict[str, Any]:
        """A LambdaLR on Megatron's optimizer; its state is one step count, so a resume cannot drift."""
        peak = self.run_config.optimizer.learning_rate
        config = self.run_config
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizers, lambda step: learning_rate(config, step) / peak if peak else 0.0)
        return {"optimizer": optimizers, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build_optimizer(config: RunConfig) -> nl.MegatronOptimizerModule:
    """AdamW with decoupled weight decay on matrices only (Megatron's default rule), clipping and the run's schedule."""
    settings = config.optimizer
    megatron_config = MegatronOptimizerConfig(
        optimizer="adam",
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_eps=settings.epsilon,
        clip_grad=settings.clip_grad_norm,
        use_distributed_optimizer=config.parallel.distributed_optimizer,
        bf16=config.train.precision == "bf16-mixed",
        fp16=False,
        params_dtype=torch.bfloat16 if config.train.precision == "bf16-mixed" else torch.float32,
    )
    return nl.MegatronOptimizerModule(config=megatron_config, lr_scheduler=ScheduleModule(config))
