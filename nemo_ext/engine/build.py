"""ResolvedRun -> NeMo objects: model, strategy, trainer. Nothing runs here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from megatron.core.distributed import DistributedDataParallelConfig
from nemo import lightning as nl
from nemo.lightning.pytorch.trainer import configure_no_restart_validation_training_loop

from nemo_ext.backend import on_cpu
from nemo_ext.engine.model import LanguageModel
from nemo_ext.engine.optimizer import build_optimizer
from nemo_ext.engine.resolve import ResolvedRun
from nemo_ext.engine.strategy import ReproducibleStrategy

# recompute setting -> Megatron's granularity, method and layers at a time
RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    "selective": {"recompute_granularity": "selective"},
    "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
}


def build_model_config(run: ResolvedRun, weight_loader: Callable[[Any], None] | None) -> Any:
    """The family's Megatron config for this run, with the task's step functions."""
    config, parallel = run.config, run.config.parallel
    compute_dtype = torch.bfloat16 if config.train.precision == "bf16-mixed" else torch.float32
    data_step, forward_step = run.task.step_functions()
    dropout = {"attention_dropout": config.model.attention_dropout, "hidden_dropout": config.model.hidden_dropout}
    return run.family.build_megatron_config(
        run.hf_config,
        tensor_model_parallel_size=parallel.tp,
        pipeline_model_parallel_size=parallel.pp,
        context_parallel_size=parallel.cp,
        sequence_parallel=parallel.sequence_parallel,
        seq_length=config.train.seq_length,
        pipeline_dtype=compute_dtype,
        layer_spec=config.model.layer_spec,
        weight_loader=weight_loader,
        calculate_per_token_loss=not run.task.even_batches,  # gradients by all tokens of a global batch, not means of means
        gradient_accumulation_fusion=on_cpu(),  # on GPUs it needs Apex
        data_step_fn=data_step,
        forward_step_fn=forward_step,
        **{name: rate for name, rate in dropout.items() if rate is not None},
        **RECOMPUTE[config.train.recompute],
    )


def build_model(run: ResolvedRun, weight_loader: Callable[[Any], None] | None) -> LanguageModel:
    """NeMo's LightningModule around the family's model, with the run's optimizer."""
    return LanguageModel(build_model_config(run, weight_loader), optim=build_optimizer(run.config))


def build_strategy(run: ResolvedRun) -> ReproducibleStrategy:
    """Megatron's parallelism, and checkpoints that any layout can read."""
    parallel = run.config.parallel
    return ReproducibleStrategy(
        seed=run.config.train.seed,
        tensor_model_parallel_size=parallel.tp,
        pipeline_model_parallel_size=parallel.pp,
        context_parallel_size=parallel.cp,
        sequence_parallel=parallel.sequence_parallel,
        cluster_environment=TorchElasticEnvironment(),
        ddp=DistributedDataParallelConfig(
            use_distributed_optimizer=parallel.distributed_optimizer,
            grad_reduce_in_fp32=True,
            check_for_nan_in_grad=True,
            overlap_grad_reduce=not on_cpu(),
            overlap_param_gather=not on_cpu() and parallel.distributed_optimizer,
        ),
        # torch's AdamW can only be resharded in this format; with it, tp, pp and dp may change between runs
        ckpt_optim_fully_reshardable=True,
        ckpt_async_save=False,
        ckpt_parallel_load=True,
        replace_progress_bar=False,  # NeMo's printer enters an all-gather on rank 0 alone and hangs with gloo
        pipeline_dtype=torch.bfloat16 if run.config.train.precision == "bf16-mixed" else torch.float32,
    )


def build_trainer(run: ResolvedRun, callbacks: list[pl.Callback]) -> nl.Trainer:
    """NeMo's trainer; logging, checkpoints and progress are our callbacks' business."""
    config = run.config
    batches = config.validation.batches if run.data.split("validation") else 0
    local_ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    trainer = nl.Trainer(
        accelerator="cpu" if on_cpu() else "gpu",
        devices=local_ranks,
        num_nodes=run.ranks // local_ranks,
        max_steps=config.train.max_steps,
        strategy=build_strategy(run),
        plugins=nl.MegatronMixedPrecision("bf16-mixed" if config.train.precision == "bf16-mixed" else "32"),
        limit_val_batches=batches,
        val_check_interval=min(config.validation.every_steps or config.train.max_steps, config.train.max_steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=config.logging.every_steps,
    )
    trainer.callbacks.extend(callbacks)  # not through the constructor, where NeMo would deep-copy them
    configure_no_restart_validation_training_loop(trainer)
    return trainer
