"""What most suites share: a causal Hugging Face model, no options, nothing to refuse early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from evaluation.loading import ModelFolder, choose_context, load_model
from evaluation.options import read_options
from evaluation.suites import Settings
from nemo_ext.common.errors import ConfigError


@dataclass(frozen=True)
class NoOptions:
    """The suite is measured in one way."""


class SuiteDefaults:
    """The parts of `evaluation.suites.Suite` that rarely differ; a suite overrides what does.

    options: the dataclass that `--set` fills, see `evaluation.options`. argument: the option that is set by what stands after
    the colon in `--suite NAME:VALUE`, or None where nothing may. unused: settings that the suite does not read, each with its option
    of the command line.
    """

    name: str
    options: type[Any] = NoOptions
    argument: str | None = None
    reads_predictions: bool = False
    interval: str = "percentile bootstrap over documents"
    dtype: str = "float32"
    unused: Mapping[str, str] = MappingProxyType({"stride_tokens": "--stride", "score_end_of_document": "--score-eod"})

    def chosen(self, settings: Settings) -> Any:
        """The options of this run, as the suite's own dataclass."""
        return read_options(self.options, settings.options, self.name)

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse options and contexts that the suite or a model cannot take."""
        self.chosen(settings)
        self.refuse_unused(settings)
        for folder in folders:
            choose_context(folder, settings.context_tokens)

    def refuse_unused(self, settings: Settings) -> None:
        """Raise ConfigError for a setting that would be ignored."""
        for name, option in self.unused.items():
            if getattr(settings, name) != getattr(Settings(), name):
                raise ConfigError(f"{option}: the suite {self.name} does not read it, so it would change nothing. Leave it out.")

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> Any:
        """The causal model of `folder`."""
        return load_model(folder, device, settings.context_tokens, settings.batch_size)

    def describe(self, model: Any, settings: Settings) -> dict[str, Any]:
        """What shapes the scores beyond the files of the model, for results.json."""
        described: dict[str, Any] = model.as_dict()
        return described
