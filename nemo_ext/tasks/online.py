"""Megatron's GPTDataset with a plugin that transforms every document anew in every epoch.

Sequences of seq_length + 1 tokens are cut from an OnlineStream as GPTDataset cuts them from its documents: neighbours share
one token, and the end of an epoch runs into the next one, so that no token is left out. They are shuffled within windows of
WINDOW sequences; documents are shuffled over the epoch already, and a sequence's number never depends on the run's length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from numpy.typing import NDArray

from nemo_ext.tasks.online_stream import OnlinePlugin, OnlineStream

WINDOW = 8192


@dataclass
class OnlineDatasetConfig(GPTDatasetConfig):
    """GPTDatasetConfig with the plugin."""

    plugin: OnlinePlugin | None = None


class OnlineDataset(GPTDataset):
    """Sequences of transformed documents, by number, the same on every rank. `random_seed` shuffles, the plugin's seed transforms."""

    @staticmethod
    def _key_config_attributes() -> list[str]:
        return [*GPTDataset._key_config_attributes(), "plugin"]

    def __len__(self) -> int:
        """Sequences that can be fetched: whole windows."""
        return -(-self.num_samples // WINDOW) * WINDOW

    def _build_document_sample_shuffle_indices(self) -> tuple[None, None, None]:
        """Called by GPTDataset's constructor for its three indices, in whose place the stream has one."""
        config = self.config
        self._window, self._shuffled = -1, np.arange(WINDOW)
        self._stream = OnlineStream(
            self.dataset.get,
            self.dataset.sequence_lengths,
            config.plugin,
            config.random_seed,
            f"{config.tokenizer.data} {self.dataset_path}",
            Path(config.path_to_cache),
        )
        self._stream.require(len(self) * config.sequence_length + 1)
        return None, None, None

    def _query_document_sample_shuffle_indices(self, idx: int) -> tuple[NDArray[np.int64], Any]:
        """Ids [seq_length + 1] of sequence `idx`; which documents they are from is not told."""
        window, position = divmod(idx, WINDOW)
        if window != self._window:
            generator = np.random.default_rng([self.config.random_seed, WINDOW, window])
            self._window, self._shuffled = window, generator.permutation(WINDOW)
        number = window * WINDOW + int(self._shuffled[position])
        length = self.config.sequence_length
        return self._stream.ids(number * length, length + 1), None
