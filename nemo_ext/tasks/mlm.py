"""Masked language modelling: pieces of documents, packed end to end or padded, with some of their tokens to predict.

The loss is per predicted token of the whole global batch, whatever micro batch or rank they are in. Padding is neither attended to
nor predicted; packed pieces do not see each other, and the positions of each begin at 0.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.megatron_dataset import MegatronDataset
from numpy.typing import NDArray

from nemo_ext.common.blend import Blend
from nemo_ext.common.files import write_json
from nemo_ext.config import RunConfig, longest_sequence
from nemo_ext.tasks.data_module import SequenceData, Sequences, next_batch
from nemo_ext.tasks.mlm_dataset import MaskedDataset, MaskedDatasetConfig
from nemo_ext.tasks.mlm_masking import IGNORED, Masking
from nemo_ext.tasks.mlm_vocabulary import masking_vocabulary

EVERY_STAGE_KEYS = ("position_ids", "attention_mask", "cu_seqlens")
FIRST_STAGE_KEYS = ("tokens",)
LAST_STAGE_KEYS = ("labels", "loss_mask")
VALIDATION_SEED = 0  # of order and masks: the same figure for every run on a dataset, whatever its seed
ROWS_SCHEMA = "sibol.rows-report/1"

logger = logging.getLogger(__name__)


class MaskedData(SequenceData):
    """Training and validation rows of one run.

    Batches are dicts of tokens, labels (IGNORED where nothing is to be predicted), position_ids `[micro batch, seq]` int64, loss_mask
    `[micro batch, seq]` fp32, and either attention_mask `[micro batch, seq]` bool or, packed, cu_seqlens `[pieces + 1]` int32.
    They are as long as their longest row, except where pipeline stages must know the length beforehand.
    """

    def __init__(self, config: RunConfig, data: Blend, index_cache: Path) -> None:
        super().__init__(config, data, index_cache)
        self.vocabulary = masking_vocabulary(data.tokenizer_dir)
        self._shortest = config.train.seq_length if config.parallel.pp > 1 else 1
        self._multiple = config.parallel.tp if config.parallel.sequence_parallel else 1

    def dataset(self, split: str) -> tuple[type[MegatronDataset], type[Any], dict[str, Any]]:
        """MaskedDataset; the rows and masks of validation do not depend on the run's seed, nor its masks on the epoch."""
        settings, training = self.config.data.masking, split == "train"
        rate = settings.rate if training or settings.validation_rate is None else settings.validation_rate
        seed = self.config.train.seed if training else VALIDATION_SEED
        fields = {
            "random_seed": seed,
            "piece_tokens": longest_sequence(self.config),
            "row_tokens": self.config.train.seq_length if self.config.data.packing else None,
            "masks_by_epoch": training,
            "masking": Masking(rate, settings.mask_share, settings.random_share, settings.whole_words, seed),
            "vocabulary": self.vocabulary,
            "framing": {
                info.splits[split].prefix: (int(info.manifest.get("prepend_bos", False)), int(info.append_eod))
                for info in self.data.datasets
                if split in info.splits
            },
        }
        return MaskedDataset, MaskedDatasetConfig, fields

    def setup(self, stage: str = "") -> None:
        """Build the datasets, and leave in the run folder what they hold and what became of the documents."""
        super().setup(stage)
        if os.environ["RANK"] == "0":
            splits = {"train": self._train, "validation": self._validation}
            report = {name: [part.report() for part in parts_of(rows)] for name, rows in splits.items() if rows is not None}
            write_json(Path(self.config.output_dir) / "rows.json", {"schema": ROWS_SCHEMA, **report})
            for name, parts in report.items():
                for part in parts:
                    logger.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in part.items()))
                    if part["empty_documents"]:
                        logger.warning("%(empty_documents)d of %(documents)d documents of %(data)s have no tokens, and no row", part)

    def collate(self, rows: list[dict[str, NDArray[np.int64]]]) -> dict[str, torch.Tensor]:
        """A micro batch of rows."""
        length = max(self._shortest, *(len(row["shown"]) for row in rows))
        length += -length % self._multiple
        batch = {
            "tokens": padded([row["shown"] for row in rows], length, self.vocabulary.pad_id),
            "labels": padded([row["labels"] for row in rows], length, IGNORED),
            "position_ids": padded([positions(row) for row in rows], length, 0),
        }
        batch["loss_mask"] = (batch["labels"] != IGNORED).float()
        if self.config.data.packing:
            assert len(rows) == 1, "checked before the run began"
            boundaries = np.append(rows[0]["starts"], len(rows[0]["shown"]))
            batch["cu_seqlens"] = torch.from_numpy(boundaries.astype(np.int32))
        else:
            batch["attention_mask"] = padded([np.ones(len(row["shown"]), dtype=bool) for row in rows], length, False)
        return batch

    def tokens_between(self, first: int, end: int) -> int:
        """Tokens in training rows number `first` to `end` - 1, padding not counted."""
        assert self._train is not None
        if not isinstance(self._train, BlendedDataset):
            return int(self._train.index.tokens(np.arange(first, end)).sum())
        dataset, row = self._train.dataset_index[first:end], self._train.dataset_sample_index[first:end]
        return sum(int(part.index.tokens(row[dataset == number]).sum()) for number, part in enumerate(self._train.datasets))


def parts_of(rows: Sequences) -> list[MaskedDataset]:
    """The datasets that a blend draws from."""
    return rows.datasets if isinstance(rows, BlendedDataset) else [rows]


def padded(rows: list[NDArray[Any]], length: int, filling: int | bool) -> torch.Tensor:
    """`rows` as a tensor `[rows, length]`."""
    batch = np.full((len(rows), length), filling, dtype=rows[0].dtype)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(batch)


def positions(row: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Positions [tokens] that restart with every piece of a row."""
    tokens, starts = len(row["shown"]), row["starts"]
    return np.arange(tokens) - np.repeat(starts, np.diff(np.append(starts, tokens)))


def data_step(iterator: Iterator[Any]) -> dict[str, Any]:
    """Next micro batch with what this pipeline stage needs on its device, and None for the rest."""
    return next_batch(iterator, FIRST_STAGE_KEYS, LAST_STAGE_KEYS, EVERY_STAGE_KEYS)


def forward_step(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Per-token losses `[micro batch, seq]` on the last stage, hidden states before it."""
    return model(
        input_ids=batch["tokens"],
        position_ids=batch["position_ids"],
        attention_mask=batch.get("attention_mask"),
        cu_seqlens=batch.get("cu_seqlens"),
        labels=batch["labels"],
    )
