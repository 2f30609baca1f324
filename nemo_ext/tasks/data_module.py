"""What the data of every task have in common: Megatron's blending and sampling, loaders, and the place in the data.

A task says how the sequences of a split are built (`build`) and, where they differ in length, how they become a batch (`collate`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningDataModule
from megatron.core import parallel_state
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.megatron_dataset import MegatronDataset
from megatron.core.datasets.utils import get_blend_from_list
from megatron.core.num_microbatches_calculator import get_num_microbatches
from nemo.lightning.data import WrappedDataLoader
from nemo.lightning.pytorch.plugins import MegatronDataSampler

from nemo_ext.common.blend import Blend
from nemo_ext.config import RunConfig

SPLITS = ("train", "validation", "test")  # in the order of Megatron's Split
Sequences: TypeAlias = MegatronDataset | BlendedDataset


@dataclass(frozen=True)
class TokenizerFacts:
    """All that Megatron's datasets ask of a tokenizer. `pad` is no token: packed sequences have no padding to leave out."""

    data: str
    eod: int
    pad: int = -1

    @property
    def unique_identifiers(self) -> dict[str, str]:
        """What Megatron's cached sample indices depend on: `data` is the fingerprint of tokenizer and token files."""
        return {"class": "sibol", "data": self.data}


class SequenceData(LightningDataModule):
    """Training and validation sequences of one run. Subclasses say which."""

    collate: Callable[[list[Any]], dict[str, Any]] | None = None  # None: torch's own, for sequences of one length

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
        self._train: Sequences | None = None
        self._validation: Sequences | None = None

    @abstractmethod
    def dataset(self, split: str) -> tuple[type[MegatronDataset], type[Any], dict[str, Any]]:
        """The dataset class of `split`, its config class, and the fields of that which are not the same for every task."""

    def setup(self, stage: str = "") -> None:
        """Build the datasets: rank 0 writes sample indices into the cache, the others read them."""
        del stage
        batch_size = self.config.train.global_batch_size
        self._train = self._build("train", self.config.train.max_steps * batch_size)
        self._validation = self._build("validation", self.config.validation.batches * batch_size)

    def _build(self, name: str, sequences: int) -> Sequences | None:
        """`sequences` of split `name`, from each dataset by its share; None when no dataset has the split."""
        weighted = [text for split, share in self.data.split(name) for text in (str(share), split.prefix)]
        if not weighted:
            return None
        position = SPLITS.index(name)
        blends, sizes = [None] * len(SPLITS), [0] * len(SPLITS)
        blends[position], sizes[position] = get_blend_from_list(weighted), sequences
        dataset_type, config_type, fields = self.dataset(name)
        dataset_config = config_type(
            sequence_length=self.config.train.seq_length,
            tokenizer=TokenizerFacts(self.data.fingerprint, self.data.eod_id),
            path_to_cache=str(self.index_cache),
            blend_per_split=blends,
            **fields,
        )
        return BlendedMegatronDatasetBuilder(dataset_type, sizes, lambda: True, dataset_config).build()[position]

    def train_dataloader(self) -> WrappedDataLoader:
        """Batches from the first sequence that was not consumed yet."""
        return self._loader(self._train, "train")

    def val_dataloader(self) -> WrappedDataLoader:
        """The same validation batches every time."""
        return self._loader(self._validation, "validation")

    def _loader(self, dataset: Sequences | None, mode: str) -> WrappedDataLoader:
        assert dataset is not None and self.trainer is not None
        self._first_step = self.data_sampler.init_global_step = self.trainer.global_step
        return WrappedDataLoader(
            mode=mode,
            dataset=dataset,
            num_workers=self.config.data.num_workers,
            pin_memory=torch.cuda.is_available(),  # pinned host memory is of use to a GPU only
            persistent_workers=self.config.data.num_workers > 0,
            collate_fn=self.collate,
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

    def tokens_between(self, first: int, end: int) -> int:
        """Tokens in training sequences number `first` to `end` - 1, padding not counted."""
        return (end - first) * self.config.train.seq_length


def next_batch(iterator: Iterator[Any], first: tuple[str, ...], last: tuple[str, ...], every: tuple[str, ...] = ()) -> dict[str, Any]:
    """The next micro batch, on this rank's device: what its pipeline stage needs (by key), and None for the rest."""
    batch = next(iterator)
    tensors = batch[0] if isinstance(batch, tuple) else batch
    wanted = every
    if parallel_state.is_pipeline_first_stage():
        wanted += first
    if parallel_state.is_pipeline_last_stage():
        wanted += last
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")  # this rank's own
    return {name: tensor.to(device, non_blocking=True) if name in wanted else None for name, tensor in tensors.items()}
