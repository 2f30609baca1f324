"""Next-token prediction: Megatron's GPTDataset over a Sibol dataset folder, without attention masks.

Causality is the attention kernel's business, so no [seq, seq] mask is built, moved or kept. Every token of a packed
sequence counts in the loss, the end-of-document token too: a model has to learn where documents end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from megatron.core import parallel_state
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.utils import get_blend_from_list
from megatron.core.num_microbatches_calculator import get_num_microbatches
from megatron.core.utils import get_batch_on_this_cp_rank
from nemo.lightning.data import WrappedDataLoader
from nemo.lightning.pytorch.plugins import MegatronDataSampler

from nemo_ext.common.blend import Blend
from nemo_ext.config import RunConfig
from nemo_ext.tasks.online import OnlineDataset, OnlineDatasetConfig
from nemo_ext.tasks.online_stream import OnlinePlugin
from nemo_ext.tasks.treatment import plugin_settings

FIRST_STAGE_KEYS = ("tokens", "position_ids")
LAST_STAGE_KEYS = ("labels", "loss_mask")
SPLITS = ("train", "validation", "test")  # in the order of Megatron's Split


@dataclass(frozen=True)
class TokenizerFacts:
    """All that GPTDataset asks of a tokenizer. `pad` is no token: packed sequences have no padding to leave out."""

    data: str
    eod: int
    pad: int = -1

    @property
    def unique_identifiers(self) -> dict[str, str]:
        """What Megatron's cached sample indices depend on: `data` is the fingerprint of tokenizer and token files."""
        return {"class": "sibol", "data": self.data}


class PretrainingData(LightningDataModule):
    """Training and validation sequences of one run, in an order that depends on the seed.

    Offline and over more than one epoch it depends on the number of steps, too: Megatron shuffles all epochs of a run together.

    Batches are dicts of tokens, labels, position_ids `[micro batch, seq]` int64 and loss_mask `[micro batch, seq]` fp32.
    """

    def __init__(self, config: RunConfig, data: Blend, index_cache: Path) -> None:
        super().__init__()
        self.config, self.data, self.index_cache = config, data, index_cache
        self.data_sampler = MegatronDataSampler(
            seq_len=config.train.seq_length,
            micro_batch_size=config.train.micro_batch_size,
            global_batch_size=config.train.global_batch_size,
            output_log=False,
        )
        self._first_step = 0
        self._train: GPTDataset | BlendedDataset | None = None
        self._validation: GPTDataset | BlendedDataset | None = None

    def setup(self, stage: str = "") -> None:
        """Build the datasets: rank 0 writes sample indices into the cache, the others read them.

        Validation is on the ids as they are stored, also when training transforms them: the same figure for every arm of a study.
        """
        del stage
        batch_size = self.config.train.global_batch_size
        self._train = self._build("train", self.config.train.max_steps * batch_size)
        self._validation = self._build("validation", self.config.validation.batches * batch_size)

    def _build(self, name: str, sequences: int) -> GPTDataset | BlendedDataset | None:
        """`sequences` of split `name`, from each dataset by its share; None when no dataset has the split."""
        weighted = [text for split, share in self.data.split(name) for text in (str(share), split.prefix)]
        if not weighted:
            return None
        position = SPLITS.index(name)
        blends, sizes = [None] * len(SPLITS), [0] * len(SPLITS)
        blends[position], sizes[position] = get_blend_from_list(weighted), sequences
        online = name == "train" and self.config.data.plugin_mode == "online"
        dataset_config = OnlineDatasetConfig(
            random_seed=self.config.train.seed,
            sequence_length=self.config.train.seq_length,
            tokenizer=TokenizerFacts(self.data.fingerprint, self.data.eod_id),
            path_to_cache=str(self.index_cache),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
            blend_per_split=blends,
            plugin=self._plugin() if online else None,
        )
        dataset_type = OnlineDataset if online else GPTDataset
        return BlendedMegatronDatasetBuilder(dataset_type, sizes, lambda: True, dataset_config).build()[position]

    def _plugin(self) -> OnlinePlugin:
        data = self.config.data
        assert data.plugin is not None, "check_treatment ran first"
        return OnlinePlugin(data.plugin, plugin_settings(data), data.plugin_seed, str(self.data.tokenizer_dir))

    def train_dataloader(self) -> WrappedDataLoader:
        """Batches from the first sequence that was not consumed yet."""
        return self._loader(self._train, "train")

    def val_dataloader(self) -> WrappedDataLoader:
        """The same validation batches every time."""
        return self._loader(self._validation, "validation")

    def _loader(self, dataset: GPTDataset | BlendedDataset | None, mode: str) -> WrappedDataLoader:
        assert dataset is not None and self.trainer is not None
        self._first_step = self.data_sampler.init_global_step = self.trainer.global_step
        return WrappedDataLoader(
            mode=mode,
            dataset=dataset,
            num_workers=self.config.data.num_workers,
            pin_memory=torch.cuda.is_available(),  # pinned host memory is of use to a GPU only
            persistent_workers=self.config.data.num_workers > 0,
        )

    def reconfigure_limit_batches(self) -> None:
        """Called by NeMo's strategy: Lightning counts micro batches, the settings count global ones."""
        assert self.trainer is not None
        self.trainer.limit_val_batches *= get_num_microbatches()

    def state_dict(self) -> dict[str, int]:
        """Sequences consumed so far, for the checkpoint."""
        assert self.trainer is not None
        return {"consumed_samples": self.data_sampler.compute_consumed_samples(self.trainer.global_step - self._first_step)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after the sequences that a checkpoint had consumed."""
        consumed = state_dict["consumed_samples"]
        self.data_sampler.init_consumed_samples = self.data_sampler.prev_consumed_samples = consumed


def data_step(iterator: Iterator[Any]) -> dict[str, Any]:
    """Next micro batch with what this pipeline stage needs on its device, and None for the rest."""
    batch = next(iterator)
    tensors = batch[0] if isinstance(batch, tuple) else batch
    wanted: tuple[str, ...] = ()
    if parallel_state.is_pipeline_first_stage():
        wanted += FIRST_STAGE_KEYS
    if parallel_state.is_pipeline_last_stage():
        wanted += LAST_STAGE_KEYS
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")  # this rank's own
    moved = {name: tensor.to(device, non_blocking=True) if name in wanted else None for name, tensor in tensors.items()}
    return get_batch_on_this_cp_rank(moved)


def forward_step(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Per-token losses `[micro batch, seq]` on the last stage, hidden states before it."""
    return model(
        input_ids=batch["tokens"],
        position_ids=batch["position_ids"],
        attention_mask=None,
        labels=batch["labels"],
    )
