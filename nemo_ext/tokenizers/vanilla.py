"""The plugin that changes nothing: the baseline arm of a tokenization study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer


@dataclass
class VanillaSettings:
    """No settings."""


class Vanilla:
    """Ids as the tokenizer gave them."""

    name = "vanilla"
    settings_type = VanillaSettings

    def __init__(self, settings: VanillaSettings, tokenizer: TextTokenizer) -> None:
        self.settings = settings

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        """The batch itself."""
        return batch
