"""The order in which devices, batch sizes and protocols are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from evaluation.suites.throughput_model import TimedModel
from evaluation.suites.throughput_timing import LOADER_ONLY, PROTOCOLS, Cell, Feed, Plan, best, time_protocol
from nemo_ext.common.errors import ConfigError

GPU_TEXTS, CPU_TEXTS = 8192, 200
GPU_BATCH_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
CPU_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
STUDY_CPU_BATCH_SIZE = 32


@dataclass(frozen=True)
class Options:
    """batch_sizes, texts: of the device that is measured; cpu_beside: also the study's CPU figure when that is a GPU."""

    batch_sizes: tuple[str, ...] = ()
    texts: int | None = None
    repeats: int = 3
    warmup: int = 1
    max_tokens: int | None = None
    head: bool = False
    cpu_beside: bool = True
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"


@dataclass(frozen=True)
class Sweep:
    """What was timed of one model, on `device` and, when that is a GPU, on the CPU beside it."""

    device: str
    cells: list[Cell]
    texts: int
    truncated: int
    max_tokens: int
    left_out: tuple[int, ...]
    attention: dict[str, str]

    def of(self, device: str) -> list[Cell]:
        """The cells of one device."""
        return [cell for cell in self.cells if cell.device == device]


def sweep(model: TimedModel, texts: Sequence[str], options: Options, seed: int, advance: Callable[[float], None]) -> Sweep:
    """Time `model` on its device, then the study's CPU figure. `advance` is told the share of the work that is done."""
    device = model.device
    on_gpu = device.type != "cpu"
    texts = texts[: options.texts or (GPU_TEXTS if on_gpu else CPU_TEXTS)]
    wanted = tuple(map(int, options.batch_sizes)) or (GPU_BATCH_SIZES if on_gpu else CPU_BATCH_SIZES)
    sizes = [size for size in wanted if size <= len(texts)]
    if not sizes:
        listed = ", ".join(map(str, wanted))
        raise ConfigError(f"All batch sizes ({listed}) exceed the {len(texts)} texts. Give more texts, or smaller --set batch_sizes=.")
    encoded, truncated = model.encode(texts)
    beside = on_gpu and options.cpu_beside
    part = 1 / (len(PROTOCOLS) * len(sizes) + beside + 1)
    plan = Plan(options.repeats, options.warmup, on_gpu, seed)
    attention = {device.type: model.attention}
    feed = Feed(encoded, model.tokenizer, seed)
    cells = []
    for size in sizes:
        for protocol in PROTOCOLS:
            cells.append(time_protocol(model.network, device, feed, protocol, size, plan))
            advance(part)
    fastest = best(cells, "docket")
    if fastest is None:
        listed = ", ".join(map(str, sizes))
        raise ConfigError(f"No memory on {device} for a batch of any size ({listed}). Choose smaller --set batch_sizes=.")
    cells.append(time_protocol(None, device, feed, LOADER_ONLY, fastest.batch_size, plan))
    advance(part)
    if beside:
        cpu = torch.device("cpu")
        model.move(cpu)
        attention["cpu"] = model.attention
        feed, plan = Feed(encoded[:CPU_TEXTS], model.tokenizer, seed), replace(plan, bfloat16=False)
        cells.append(time_protocol(model.network, cpu, feed, "docket", STUDY_CPU_BATCH_SIZE, plan))
        advance(part)
    left_out = tuple(size for size in wanted if size not in sizes)
    return Sweep(device.type, cells, len(texts), truncated, model.max_tokens, left_out, attention)
