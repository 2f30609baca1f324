"""Counts the bytes that autograd holds for a backward pass, now and at the most."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch


class SavedBytes:
    """Bytes of saved tensors' storages, each storage once, those of a model's parameters left out."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._holders: Counter[int] = Counter()
        self.now = self.most = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is saved inside, also by layers that a backward pass inside computes again."""
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Held(self, tensor), lambda held: held.tensor):
            yield

    def hold(self, address: int, size: int) -> None:
        if address in self._parameters:
            return
        self._holders[address] += 1
        if self._holders[address] == 1:
            self.now += size
            self.most = max(self.most, self.now)

    def release(self, address: int, size: int) -> None:
        if address in self._parameters:
            return
        self._holders[address] -= 1
        if self._holders[address] == 0:
            self.now -= size


class _Held:
    """A saved tensor; the storage's address cannot be taken by another while this lives."""

    def __init__(self, counter: SavedBytes, tensor: Any) -> None:
        self.counter, self.tensor = counter, tensor
        storage = tensor.untyped_storage()
        self.place = (storage.data_ptr(), storage.nbytes())
        counter.hold(*self.place)

    def __del__(self) -> None:
        self.counter.release(*self.place)
