"""How fast a model reads texts: a sweep over batch sizes by the protocol of the docket study, and what that protocol hides.

Three protocols (`evaluation.suites.throughput_timing`): `docket`, whose time includes the data loader and the padding of random
batches, the same without the loader, and the same texts sorted by length. Each batch size is timed several times after warm-up; a
figure is the median, its interval the range from the fastest to the slowest pass (not a confidence interval). A protocol's figure
is that of its fastest batch size, as in the study, whose own numbers are single passes without warm-up.

- On a GPU: bf16 autocast, batches of 8 to 4,096; beside it, on the CPU, the study's 200 texts in batches of 32.
- On a CPU: fp32 with eager attention, 200 texts, batches of 1 to 32. Every cell is four passes over all texts; the study's own
  cost is `repeats=1 warmup=0 batch_sizes=32`.
- The model's body is timed without its head, texts are tokenized before the clock starts and cut at 768 tokens (or at what the
  model takes); how many were cut is stated.
- `loader_only`: the docket loop without a model, below which no model can come by that protocol.

Times depend on the machine and on what else it does: compare only what was measured on one idle machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.documents import open_documents
from evaluation.loading import ModelFolder
from evaluation.models import Advance
from evaluation.suites import Settings, Summary
from evaluation.suites.base import SuiteDefaults
from evaluation.suites.throughput_model import TimedModel
from evaluation.suites.throughput_summary import summarise
from evaluation.suites.throughput_sweep import GPU_TEXTS, Options, Sweep, sweep
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import sha256_of_json


@dataclass(frozen=True)
class Texts:
    """The first texts of the data, in their order."""

    path: Path
    texts: list[str]
    bytes: int
    sha256: str
    available: int
    warnings: tuple[str, ...]

    @property
    def documents(self) -> int:
        """How many were read."""
        return len(self.texts)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        counts = {"documents": self.documents, "bytes": self.bytes, "documents_in_all": self.available}
        return {"path": str(self.path.absolute()), "kind": "first texts", "split": None, "sha256": self.sha256, **counts}


class Throughput(SuiteDefaults):
    """The suite, see the module's text for the definition."""

    name = "throughput"
    version = 1
    primary_metric = "seconds_per_100k_texts"
    lower_is_better = True
    options = Options
    interval = "fastest to slowest pass"
    unused = MappingProxyType(
        {
            **SuiteDefaults.unused,
            "batch_size": "--batch-size (see --set batch_sizes=)",
            "context_tokens": "--context (see --set max_tokens=)",
        }
    )
    dtype = "bfloat16 autocast on a GPU, float32 on a CPU"

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse numbers that cannot be timed."""
        super().check(settings, folders)
        options = self.chosen(settings)
        wrong = [text for text in options.batch_sizes if not text.isdecimal() or int(text) < 1]
        if wrong:
            raise ConfigError(f"--set batch_sizes={','.join(options.batch_sizes)}: {', '.join(wrong)} is no number of at least 1.")
        for name, least in (("texts", 1), ("repeats", 1), ("warmup", 0), ("max_tokens", 1)):
            value = getattr(options, name)
            if value is not None and value < least:
                raise ConfigError(f"--set {name}={value}: expected at least {least}.")

    def read(self, path: Path, settings: Settings) -> Texts:
        """As many texts as will be needed at most."""
        documents = open_documents(path, settings.split, settings.text_field)
        wanted = self.chosen(settings).texts or GPU_TEXTS
        texts = [document.text for _, document in zip(range(wanted), documents, strict=False)]
        size = sum(len(text.encode()) for text in texts)
        return Texts(path, texts, size, sha256_of_json(texts), documents.documents, documents.warnings)

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> TimedModel:
        """The model that the folder's config names."""
        options = self.chosen(settings)
        return TimedModel(folder, device, options.head, options.max_tokens, options.attention)

    def score(self, model: TimedModel, items: Texts, settings: Settings, advance: Advance) -> Sweep:
        """Every batch size by every protocol."""
        return sweep(model, items.texts, self.chosen(settings), settings.seed, lambda share: advance(share * items.bytes))

    def summarise(self, scores: Sequence[Sweep], settings: Settings) -> Summary:
        """The fastest batch size of each protocol, and against a second model the difference (negative: faster)."""
        return summarise(scores)


SUITE = Throughput()
