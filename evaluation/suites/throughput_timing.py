"""Wall time of a model over texts that are tokenized already, batch size by batch size, in three ways of feeding it.

- `docket`: how the docket study timed its models (freelawproject/classifier-experiments, projects/docketbert/inference_test.py at
  582d15e): random order, a torch DataLoader without workers over a `datasets.Dataset`, padding by transformers'
  DataCollatorWithPadding to a multiple of 8, collation inside of the measured time.
- `loader_free`: the same batches, collated before the clock starts. What is missing from `docket` is the cost of the loader, which
  is the larger part for small models on a GPU.
- `sorted`: batches of texts of like length, collated before the clock starts: the same texts almost without padding.

`loader_only` is the loop of `docket` without a model, the floor below which that protocol cannot come.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

PROTOCOLS = ("docket", "loader_free", "sorted")
LOADER_ONLY = "loader_only"
PAD_TO_MULTIPLE_OF = 8  # inference_test.py
CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch raises RuntimeError, not OutOfMemoryError, on a CPU


@dataclass(frozen=True)
class Plan:
    """How often each batch size is timed. `first` passes are run before and not counted (their time is kept)."""

    repeats: int
    warmup: int
    bfloat16: bool
    seed: int


@dataclass(frozen=True)
class Cell:
    """One protocol at one batch size on one device. `seconds`: each counted pass; none when memory ran out.

    first_s: the first pass of all, with everything that is compiled, chosen or allocated once. tokens: of the texts, special tokens
    included; positions: with padding.
    """

    device: str
    protocol: str
    batch_size: int
    texts: int
    seconds: tuple[float, ...]
    first_s: float | None
    tokens: int
    positions: int

    @property
    def id(self) -> str:
        """Unique within a model."""
        return f"{self.device}/{self.protocol}/{self.batch_size}"

    @property
    def median_s(self) -> float:
        """Median of the counted passes."""
        return statistics.median(self.seconds)

    @property
    def padding_share(self) -> float:
        """Positions that hold padding."""
        return 1 - self.tokens / self.positions

    @property
    def tokens_per_s(self) -> float:
        """Tokens, without padding, per second."""
        return self.tokens / self.median_s


def best(cells: Iterable[Cell], protocol: str) -> Cell | None:
    """The fastest batch size of a protocol, as the study has it; None where memory never sufficed."""
    timed = [cell for cell in cells if cell.protocol == protocol and cell.seconds]
    return min(timed, key=lambda cell: cell.median_s, default=None)


class Feed:
    """Encoded texts as batches. `encoded` are token ids; masks are made here."""

    def __init__(self, encoded: Sequence[Sequence[int]], tokenizer: Any, seed: int) -> None:
        self._encoded = [list(ids) for ids in encoded]
        self._tokenizer = tokenizer
        self._seed = seed

    def loader(self, batch_size: int, in_order: bool = False) -> Any:
        """The study's DataLoader; the order is random but the same in every pass."""
        from datasets import Dataset
        from torch.utils.data import DataLoader
        from transformers import DataCollatorWithPadding

        ids = sorted(self._encoded, key=len, reverse=True) if in_order else self._encoded
        # A loader draws its order anew in each pass, so each pass gets a loader with the same seed.
        return DataLoader(
            Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}),
            batch_size=batch_size,
            shuffle=not in_order,
            collate_fn=DataCollatorWithPadding(self._tokenizer, pad_to_multiple_of=PAD_TO_MULTIPLE_OF),
            generator=torch.Generator().manual_seed(self._seed),
        )

    def batches(self, batch_size: int, protocol: str) -> list[dict[str, torch.Tensor]]:
        """All batches of a protocol, collated."""
        return [dict(batch) for batch in self.loader(batch_size, in_order=protocol == "sorted")]

    def __len__(self) -> int:
        return len(self._encoded)


def time_protocol(network: Any, device: torch.device, feed: Feed, protocol: str, batch_size: int, plan: Plan) -> Cell:
    """Time `network` (None: the loader alone). Running out of memory gives a cell without seconds, and memory is given back."""
    batches = feed.batches(batch_size, protocol)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    positions = sum(batch["attention_mask"].numel() for batch in batches)
    from_loader = protocol in ("docket", LOADER_ONLY)
    seconds: list[float] = []
    try:
        for _ in range(plan.warmup + plan.repeats):
            seconds.append(_one_pass(network, device, feed.loader(batch_size) if from_loader else batches, plan.bfloat16))
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and CPU_ALLOCATOR not in str(error):
            raise
        seconds = []
    if not seconds:  # outside of the handler, which would keep the frames and their tensors alive
        _give_memory_back(device)
    counted = tuple(seconds[plan.warmup :])
    return Cell(device.type, protocol, batch_size, len(feed), counted, seconds[0] if seconds else None, tokens, positions)


def _one_pass(network: Any, device: torch.device, batches: Iterable[dict[str, torch.Tensor]], bfloat16: bool) -> float:
    lower: AbstractContextManager[Any] = torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()
    _wait(device)
    started_s = time.perf_counter()
    with torch.inference_mode(), lower:
        for batch in batches:
            if network is not None:
                network(**{name: tensor.to(device) for name, tensor in batch.items()})
    _wait(device)
    return time.perf_counter() - started_s


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # a kernel's launch returns before its work is done; evaluation has no backend to ask


def _give_memory_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # so that the next, smaller request does not fail on fragments; evaluation has no backend to ask
