"""The contract between the engine and a task. No torch at import, so that planning stays light."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.common.blend import Blend
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.registry import Registry, load_object
from nemo_ext.config import DataConfig, RunConfig

TASKS = Registry("task", "sibol.tasks", {"mlm": "nemo_ext.tasks.mlm_task:TASK", "pretrain": "nemo_ext.tasks.pretrain_task:TASK"})

TASK_SETTINGS = ("masking", "packing", "piece_tokens")  # of `data`, each of use to some tasks only


@dataclass(frozen=True)
class Task:
    """One way of learning; each part is `"module:object"`, imported when a run needs it.

    data_module: `(config: RunConfig, data: Blend, index_cache: Path) -> LightningDataModule`.
    data_step: `(iterator) -> batch`, a dict of tensors on this rank's device; NeMo calls it once per micro batch.
    by_sentence: whether it reads datasets of one sequence per sentence (`--sentences`) rather than per document.
    objective: the `ModelFamily.objective` of the models that can learn it.
    order_follows_steps: whether, over more than one epoch, the order of the samples depends on train.max_steps.
    reference_loss: `(hf_dir, batch) -> mean loss per counted token` of Hugging Face's model, if there is one to compare a start with.
    forward_step: `(model, batch) -> per-token losses [batch, seq]` on the last pipeline stage.
    check: `(config: RunConfig, data: Blend) -> None`; raises ConfigError for data that the task cannot do with. Needs no torch.
    check_settings: `(config: RunConfig) -> None`; the same of settings, which a plan asks for before there are data.
    reads: which of TASK_SETTINGS it goes by. Changing another one is refused, because it would have no effect.
    even_batches: every micro batch has as many tokens with a loss, so means of means are means.
    """

    name: str
    data_module: str
    data_step: str
    forward_step: str
    by_sentence: bool = False
    objective: str = "causal"
    order_follows_steps: bool = False
    check: str | None = None
    check_settings: str | None = None
    reads: tuple[str, ...] = ()
    even_batches: bool = True
    reference_loss: str | None = None

    def check_run(self, config: RunConfig, data: Blend) -> None:
        """Raise ConfigError for settings or data that the task cannot do."""
        self.require_settings(config)
        if self.check is not None:
            load_object(self.check)(config, data)

    def require_settings(self, config: RunConfig) -> None:
        """Raise ConfigError for settings that the task does not go by, or that it cannot do with any data."""
        unused = [f"data.{name}" for name in TASK_SETTINGS if name not in self.reads and _is_changed(config.data, name)]
        if unused:
            raise ConfigError(
                f"Task {self.name!r} does not go by {', '.join(unused)}, so setting it has no effect. Leave it out, or set data.task to "
                "one that does (mlm)."
            )
        if self.check_settings is not None:
            load_object(self.check_settings)(config)

    def build_data_module(self, *arguments: Any) -> Any:
        """The Lightning data module of a run."""
        return load_object(self.data_module)(*arguments)

    def step_functions(self) -> tuple[Callable[[Iterator[Any]], dict[str, Any]], Callable[[Any, dict[str, Any]], Any]]:
        """The task's data step and forward step."""
        return load_object(self.data_step), load_object(self.forward_step)

    def reference(self, hf_dir: Path, batch: dict[str, Any]) -> float:
        """The loss of Hugging Face's model on a batch."""
        assert self.reference_loss is not None
        return load_object(self.reference_loss)(hf_dir, batch)


def _is_changed(data: DataConfig, name: str) -> bool:
    return bool(getattr(data, name) != getattr(DataConfig(), name))
