"""The datasets of one run, opened, checked against one another, each with its share of the sequences.

A single dataset is a blend of one. Which sequences are drawn is left to Megatron.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemo_ext.common.dataset import DATASET_SCHEMA, DatasetInfo, SplitInfo, open_dataset
from nemo_ext.common.errors import DataError
from nemo_ext.common.files import sha256_of_json


@dataclass(frozen=True)
class Blend:
    """Datasets of one tokenizer and their shares of the training sequences, which sum to 1."""

    parts: tuple[tuple[DatasetInfo, float], ...]

    @property
    def datasets(self) -> tuple[DatasetInfo, ...]:
        """The datasets, in the order of the settings."""
        return tuple(dataset for dataset, _ in self.parts)

    @property
    def tokenizer_fingerprint(self) -> str:
        """Fingerprint of the tokenizer of all datasets."""
        return self.datasets[0].tokenizer_fingerprint

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer that travels with the first dataset; the others have the same."""
        return self.datasets[0].tokenizer_dir

    @property
    def vocab_size(self) -> int:
        """Vocabulary of the tokenizer of all datasets."""
        return self.datasets[0].vocab_size

    @property
    def eod_id(self) -> int:
        """The token that ends documents."""
        return self.datasets[0].eod_id

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what is trained on: of one dataset its own, of several theirs and their shares."""
        if len(self.parts) == 1:
            return self.datasets[0].fingerprint
        return sha256_of_json({"schema": DATASET_SCHEMA, "blend": [[dataset.fingerprint, share] for dataset, share in self.parts]})

    def split(self, name: str) -> list[tuple[SplitInfo, float]]:
        """Split `name` of every dataset that has it, with the shares among these; empty when none has it."""
        found = [(dataset.splits[name], share) for dataset, share in self.parts if name in dataset.splits]
        total = sum(share for _, share in found)
        return [(split, share / total) for split, share in found]

    def bytes_per_token(self, name: str) -> float:
        """Bytes of text behind a token of split `name`, on average over tokens drawn by share."""
        return sum(share * split.bytes / split.tokens for split, share in self.split(name))

    def require_tokenizer(self, fingerprint: str, owner: str) -> None:
        """Raise DataError unless `owner` has the tokenizer of the datasets (see DatasetInfo)."""
        self.datasets[0].require_tokenizer(fingerprint, owner)


def open_blend(weights: Mapping[str, float]) -> Blend:
    """Open the dataset folders that are the keys of `weights`. Raises DataError when one is damaged or has another tokenizer."""
    datasets, total = [open_dataset(path) for path in weights], sum(weights.values())
    for other in datasets[1:]:
        if other.tokenizer_fingerprint != datasets[0].tokenizer_fingerprint:
            raise DataError(
                f"{datasets[0].path} was tokenized with tokenizer {datasets[0].tokenizer_fingerprint[:12]}, but {other.path} with "
                f"{other.tokenizer_fingerprint[:12]}: the same ids would mean different text. Prepare both with one tokenizer."
            )
    return Blend(tuple((dataset, weight / total) for dataset, weight in zip(datasets, weights.values(), strict=True)))
