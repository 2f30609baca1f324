"""Next-token prediction: Megatron's GPTDataset over a Sibol dataset folder, without attention masks.

Causality is the attention kernel's business, so no [seq, seq] mask is built, moved or kept. Every token of a packed
sequence counts in the loss, the end-of-document token too: a model has to learn where documents end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.megatron_dataset import MegatronDataset
from megatron.core.utils import get_batch_on_this_cp_rank

from nemo_ext.tasks.data_module import SequenceData, next_batch
from nemo_ext.tasks.online import OnlineDataset, OnlineDatasetConfig
from nemo_ext.tasks.online_stream import OnlinePlugin
from nemo_ext.tasks.treatment import plugin_settings

FIRST_STAGE_KEYS = ("tokens", "position_ids")
LAST_STAGE_KEYS = ("labels", "loss_mask")


class PretrainingData(SequenceData):
    """Training and validation sequences of one run, in an order that depends on the seed.

    Offline and over more than one epoch it depends on the number of steps, too: Megatron shuffles all epochs of a run together.

    Batches are dicts of tokens, labels, position_ids `[micro batch, seq]` int64 and loss_mask `[micro batch, seq]` fp32.
    """

    def dataset(self, split: str) -> tuple[type[MegatronDataset], type[Any], dict[str, Any]]:
        """GPTDataset, or OnlineDataset where training transforms.

        Validation is on the ids as they are stored, also when training transforms them: the same figure for every arm of a study.
        """
        fields: dict[str, Any] = {
            "random_seed": self.config.train.seed,
            "reset_position_ids": False,
            "reset_attention_mask": False,
            "eod_mask_loss": False,
            "create_attention_mask": False,
        }
        if split == "train" and self.config.data.plugin_mode == "online":
            return OnlineDataset, OnlineDatasetConfig, {**fields, "plugin": self._plugin()}
        return GPTDataset, GPTDatasetConfig, fields

    def _plugin(self) -> OnlinePlugin:
        data = self.config.data
        assert data.plugin is not None, "check_treatment ran first"
        return OnlinePlugin(data.plugin, plugin_settings(data), data.plugin_seed, str(self.data.tokenizer_dir))


def data_step(iterator: Iterator[Any]) -> dict[str, Any]:
    """Next micro batch with what this pipeline stage needs on its device, and None for the rest."""
    return get_batch_on_this_cp_rank(next_batch(iterator, FIRST_STAGE_KEYS, LAST_STAGE_KEYS))


def forward_step(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Per-token losses `[micro batch, seq]` on the last stage, hidden states before it."""
    return model(
        input_ids=batch["tokens"],
        position_ids=batch["position_ids"],
        attention_mask=None,
        labels=batch["labels"],
    )
