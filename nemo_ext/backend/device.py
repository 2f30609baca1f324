"""The few questions the engine asks about the device itself, answered for CUDA and for the CPU."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import torch


def peak_memory_bytes() -> int:
    """Peak memory of this rank: allocated by torch on the GPU, else resident memory of the process (Linux: KiB units)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class DeviceGenerator:
    """The random state that training steps draw from, kept apart from the host's.

    A GPU has a generator of its own, so data loaders and samplers never disturb dropout. On the CPU both would share
    torch's default generator; here the training step runs with a state of its own, swapped in by `in_use`.
    """

    def __init__(self) -> None:
        self._cpu_state = torch.get_rng_state()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Run a block with the device's random state."""
        if torch.cuda.is_available():
            yield
            return
        host = torch.get_rng_state()
        torch.set_rng_state(self._cpu_state)
        try:
            yield
        finally:
            self._cpu_state = torch.get_rng_state()
            torch.set_rng_state(host)

    def get_state(self) -> torch.Tensor:
        """The state, to be stored in a checkpoint."""
        return torch.cuda.get_rng_state() if torch.cuda.is_available() else self._cpu_state

    def set_state(self, state: torch.Tensor) -> None:
        """Continue from a state that `get_state` gave."""
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(state)
        else:
            self._cpu_state = state
