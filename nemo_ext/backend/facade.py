"""What rewritten modules see in the place of `torch.cuda`: one synchronous device, the CPU.

Streams and events do nothing because everything has finished when a call returns. The random state is that of a
generator which this facade swaps with torch's default one (see `nemo_ext.engine.randomness`), as a GPU's generator is
apart from the host's.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Any

import torch

CPU = torch.device("cpu")


class SynchronousStream:
    """Stands for torch.cuda.Stream, Event and the `stream()` context: work is complete as soon as it is issued."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __enter__(self) -> SynchronousStream:
        return self

    def __exit__(self, *details: object) -> None:
        return None

    def record_event(self, event: SynchronousStream | None = None) -> SynchronousStream:
        return event or SynchronousStream()

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: SynchronousStream) -> float:
        del other
        return 0.0

    def _done(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    wait_stream = wait_event = synchronize = record = wait = _done


class Nvtx:
    """Profiler ranges, which no profiler reads here."""

    def range_push(self, message: str) -> None:
        del message

    def range_pop(self) -> None:
        return None

    def range(self, *args: Any, **kwargs: Any) -> contextlib.AbstractContextManager[None]:
        del args, kwargs
        return contextlib.nullcontext()


class CpuInPlaceOfCuda:
    """The part of `torch.cuda` that Megatron-Core and NeMo use, answered by the CPU; the rest is torch.cuda's own."""

    Stream = SynchronousStream
    Event = SynchronousStream
    FloatTensor = torch.FloatTensor
    HalfTensor = torch.HalfTensor
    BFloat16Tensor = torch.BFloat16Tensor
    DoubleTensor = torch.DoubleTensor
    IntTensor = torch.IntTensor
    LongTensor = torch.LongTensor
    ByteTensor = torch.ByteTensor
    BoolTensor = torch.BoolTensor
    nvtx = Nvtx()

    def current_device(self) -> torch.device:
        return CPU

    def device_count(self) -> int:
        """1: NeMo seeds Megatron's random states only where there is a device."""
        return 1

    def is_available(self) -> bool:
        return False

    def is_initialized(self) -> bool:
        """True: NeMo asserts it before it moves what a checkpoint brought in."""
        return True

    def set_device(self, device: Any) -> None:
        del device

    def synchronize(self, *args: Any) -> None:
        del args

    def empty_cache(self) -> None:
        return None

    def is_current_stream_capturing(self) -> bool:
        return False

    def move(self, value: Any) -> Any:
        """`value.cuda()`: tensors to the CPU, modules by their own `cpu()`."""
        return value.to(CPU) if isinstance(value, torch.Tensor) else value.cpu()

    def current_stream(self, *args: Any) -> SynchronousStream:
        del args
        return SynchronousStream()

    default_stream = current_stream

    def stream(self, *args: Any) -> SynchronousStream:
        del args
        return SynchronousStream()

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        del args, kwargs
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        torch.set_rng_state(state)

    def max_memory_allocated(self, *args: Any) -> int:
        """Peak resident memory of this process in bytes (Linux reports it in KiB)."""
        del args
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    memory_allocated = max_memory_reserved = memory_reserved = max_memory_allocated

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)
