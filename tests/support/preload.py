"""What every rank of a test needs, imported once in the process that ranks are forked from (see `ranks`)."""

from __future__ import annotations

import importlib

from nemo_ext import backend

MODULES = (
    "megatron.core.dist_checkpointing",
    "megatron.core.models.gpt.gpt_model",
    "megatron.core.optimizer",
    "nemo.collections.llm",
    "nemo.lightning",
    "torch.distributed.checkpoint",
    "transformers.models.qwen2.modeling_qwen2",
)

backend.install()
for module in MODULES:
    importlib.import_module(module)
