"""The contract between the engine and a task. No torch at import, so that planning stays light."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nemo_ext.common.registry import Registry, load_object

TASKS = Registry("task", "sibol.tasks", {"pretrain": "nemo_ext.tasks.pretrain_task:TASK"})


@dataclass(frozen=True)
class Task:
    """One way of learning; each part is `"module:object"`, imported when a run needs it.

    data_module: `(config: RunConfig, data: Blend, index_cache: Path) -> LightningDataModule`.
    data_step: `(iterator) -> batch`, a dict of tensors on this rank's device; NeMo calls it once per micro batch.
    by_sentence: whether it reads datasets of one sequence per sentence (`--sentences`) rather than per document.
    objective: the `ModelFamily.objective` of the models that can learn it.
    order_follows_steps: whether, over more than one epoch, the order of the samples depends on train.max_steps.
    forward_step: `(model, batch) -> per-token losses [batch, seq]` on the last pipeline stage.
    """

    name: str
    data_module: str
    data_step: str
    forward_step: str
    by_sentence: bool = False
    objective: str = "causal"
    order_follows_steps: bool = False

    def build_data_module(self, *arguments: Any) -> Any:
        """The Lightning data module of a run."""
        return load_object(self.data_module)(*arguments)

    def step_functions(self) -> tuple[Callable[[Iterator[Any]], dict[str, Any]], Callable[[Any, dict[str, Any]], Any]]:
        """The task's data step and forward step."""
        return load_object(self.data_step), load_object(self.forward_step)
