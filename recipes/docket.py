"""Encoders for court docket entries: ModernBERT continued, cut down and from scratch; set data.path, and model.init_from where one starts.

Batch, rates and schedule of the docket study (https://github.com/freelawproject/classifier-experiments at 251c1f0): one epoch of
6,353,318 entries of 69 tokens on average. Its longer entries lost what was beyond 768 tokens; here they become several pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nemo_ext.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig, ValidationConfig

ENTRY_TOKENS = 768


def docket_base() -> RunConfig:
    """ModernBERT-base, continued on docket entries, each in a row of its own, as the docket study did."""
    return RunConfig(
        name="docket_base",
        output_dir="runs/docket_base",
        model=ModelConfig(family="modernbert", preset="base"),
        data=DataConfig(task="mlm", num_workers=2),
        train=TrainConfig(
            max_steps=24_818, seq_length=ENTRY_TOKENS, global_batch_size=256, micro_batch_size=16, precision="bf16-mixed", seed=42
        ),
        optimizer=OptimizerConfig(learning_rate=5e-4, weight_decay=0.01, beta2=0.999),
        schedule=ScheduleConfig(kind="linear", warmup_steps=1241),
        validation=ValidationConfig(every_steps=1000, batches=390),
    )


def docket_packed() -> RunConfig:
    """The same with entries packed into rows of 4,096 tokens, of which 4 are as much text a step as 256 entries."""
    base = docket_base()
    return replace(
        base,
        name="docket_packed",
        output_dir="runs/docket_packed",
        data=replace(base.data, packing=True, piece_tokens=ENTRY_TOKENS),
        train=replace(base.train, seq_length=4096, global_batch_size=4, micro_batch_size=1),
    )


def docket_sliced_10l() -> RunConfig:
    """Ten of ModernBERT-large's layers, continued; make model.init_from by `sibol slice LARGE OUT --every 3`."""
    base = docket_packed()
    return replace(
        base,
        name="docket_sliced_10l",
        output_dir="runs/docket_sliced_10l",
        model=replace(base.model, preset="large", overrides={"num_hidden_layers": 10, "global_attn_every_n_layers": 1}),
    )


def docket_scratch_41m() -> RunConfig:
    """A 41 M parameter ModernBERT from scratch, the docket study's largest."""
    return _scratch("41m", hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=512)


def docket_scratch_27m() -> RunConfig:
    """A 27 M parameter ModernBERT from scratch, deep and narrow."""
    return _scratch("27m", hidden_size=320, num_hidden_layers=12, num_attention_heads=8, intermediate_size=480)


def docket_scratch_7m() -> RunConfig:
    """A 7 M parameter ModernBERT from scratch, nine tenths of it embeddings."""
    return _scratch("7m", hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=128)


def _scratch(size: str, **sizes: Any) -> RunConfig:
    base = docket_packed()
    return replace(
        base,
        name=f"docket_scratch_{size}",
        output_dir=f"runs/docket_scratch_{size}",
        model=replace(base.model, overrides={**sizes, "global_attn_every_n_layers": 2}),
    )
