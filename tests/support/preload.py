"""What every rank of a test needs, imported once in the process that ranks are forked from (see `ranks`)."""

from __future__ import annotations

from nemo_ext import backend

backend.install()

import megatron.core.dist_checkpointing  # noqa: E402
import megatron.core.models.gpt.gpt_model  # noqa: E402
import megatron.core.optimizer  # noqa: E402
import nemo.collections.llm  # noqa: E402
import nemo.lightning  # noqa: E402
import torch.distributed.checkpoint  # noqa: E402
import transformers.models.qwen2.modeling_qwen2  # noqa: E402, F401
