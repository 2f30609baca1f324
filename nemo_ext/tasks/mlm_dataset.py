"""Rows of masked pieces over Megatron's indexed datasets, by number: the same for every rank, loader process and resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from megatron.core.datasets.blended_megatron_dataset_config import BlendedMegatronDatasetConfig
from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.megatron_dataset import MegatronDataset
from numpy.typing import NDArray

from nemo_ext.common.files import sha256_of_json
from nemo_ext.tasks.mlm_masking import Masking, mask
from nemo_ext.tasks.mlm_vocabulary import MaskingVocabulary
from nemo_ext.tasks.packing import Pieces, RowIndex

INDEX_SCHEMA = "sibol.rows/1"


@dataclass
class MaskedDatasetConfig(BlendedMegatronDatasetConfig):
    """Megatron's config with what masking needs.

    row_tokens: tokens of a packed row, None for a row per piece.
    framing: path prefix of token files -> (tokens that begin, tokens that end) each of their documents. They are left out: the
        vocabulary's template takes their place.
    masks_by_epoch: other masks in every epoch, or the same in all.
    """

    piece_tokens: int = 0
    row_tokens: int | None = None
    masks_by_epoch: bool = True
    masking: Masking | None = None
    vocabulary: MaskingVocabulary | None = None
    framing: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class MaskedDataset(MegatronDataset):
    """One split's rows: each a dict of `shown` and `labels`, int64 [tokens], and `starts`, where its pieces begin, int64 [pieces]."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        config: MaskedDatasetConfig = self.config
        assert config.vocabulary is not None and config.masking is not None
        self._begin, self._end = config.framing[self.dataset_path]
        self._prefix, self._suffix = (np.array(ids, dtype=np.int64) for ids in (config.vocabulary.prefix, config.vocabulary.suffix))
        self.stored = self.dataset.sequence_lengths
        content = np.maximum(self.stored.astype(np.int64) - self._begin - self._end, 0)
        pieces = Pieces(content, config.piece_tokens, len(self._prefix) + len(self._suffix))
        parts = {
            "schema": INDEX_SCHEMA,
            "data": [config.tokenizer.data, self.dataset_path, self._begin, self._end],
            "pieces": [config.piece_tokens, pieces.frame, config.row_tokens],
            "seed": config.random_seed,
        }
        self.index = RowIndex(
            pieces, config.row_tokens, config.random_seed, Path(config.path_to_cache) / f"rows-{sha256_of_json(parts)[:32]}.npy"
        )
        self.index.require(max(1, self.num_samples))

    @staticmethod
    def numel_low_level_dataset(low_level_dataset: Any) -> int:
        """Documents of the token files."""
        return len(low_level_dataset.sequence_lengths)

    build_low_level_dataset = staticmethod(GPTDataset.build_low_level_dataset)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> dict[str, NDArray[np.int64]]:
        config, row = self.config, self.index.row(int(number))
        ids, starts = self._read(row.pieces)
        epoch = row.epoch if config.masks_by_epoch else 0
        shown, labels = mask(ids, starts, row.pieces, epoch, config.masking, config.vocabulary)
        return {"shown": shown, "labels": labels, "starts": starts}

    def _read(self, pieces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of pieces end to end, in their template, and where each begins."""
        documents, offsets, lengths = self.index.pieces.locate(np.asarray(pieces))
        parts = []
        for document, offset, length in zip(documents.tolist(), (offsets + self._begin).tolist(), lengths.tolist(), strict=True):
            parts += [self._prefix, self.dataset.get(document, offset=offset, length=length), self._suffix]
        whole = lengths + self.index.pieces.frame
        return np.concatenate(parts).astype(np.int64), np.cumsum(whole) - whole

    def report(self) -> dict[str, Any]:
        """What an epoch of it holds, and what became of the documents."""
        pieces, (rows, tokens) = self.index.pieces, self.index.first_epoch()
        return {
            "data": self.dataset_path,
            "documents": len(self.stored),
            "empty_documents": int((pieces.content == 0).sum()),
            "documents_cut": pieces.cut_documents,
            "pieces": pieces.count,
            "rows": rows,
            "tokens_stored": int(self.stored.sum(dtype=np.int64)),
            "tokens_replaced_by_template": int(self.stored.sum(dtype=np.int64) - pieces.content.sum()),
            "tokens_of_template": pieces.count * pieces.frame,
            "tokens": tokens,
        }
