"""Named entities: precision, recall and F1, strict and fuzzy, of models that label words, of models that write, and of files.

Data: HIPE's TSV (2020 and 2022) or CoNLL with IOB2, IOB1 or BIOES labels (`evaluation.metrics.entities_read`). A model is

- a token-classification model, asked for a label of each word (`evaluation.classification`);
- a causal model, asked to repeat the text with its names marked as `[name | LABEL]`; what it marks is sought in the source
  (`evaluation.metrics.alignment`), and a name that is not there counts as a wrong prediction;
- a file of predictions, HIPE's TSV or CoNLL, for the same words in the same order, given in the place of the model.

predictions.tsv beside results.json has a line per word with the right and the predicted label.

What counts as right: `evaluation.metrics.entities`. How figures and intervals come from it: `evaluation.suites.ner_summary`.
Differences from the HIPE scorer: labels are not made upper case (types that differ in case alone are matched), a predicted I- that
continues nothing is no entity (but see --set scheme=lenient), and predictions of types that the data do not have count as wrong
instead of being dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.classification import load_classifier
from evaluation.loading import ModelFolder, choose_context, load_model
from evaluation.models import Advance
from evaluation.predictions import PredictionFile
from evaluation.suites import Settings, Summary
from evaluation.suites.base import SuiteDefaults
from evaluation.suites.ner_data import NerItems, NerOptions, read_items
from evaluation.suites.ner_predict import Predictions, check_options, predict
from evaluation.suites.ner_summary import summarise
from nemo_ext.common.errors import ConfigError

CLASSIFIER = "ForTokenClassification"
WRITERS = ("ForCausalLM", "LMHeadModel")


class Ner(SuiteDefaults):
    """The suite, see the module's text for the definition."""

    name = "ner"
    version = 1
    primary_metric = "strict_f1"
    lower_is_better = False
    options = NerOptions
    reads_predictions = True
    unused = MappingProxyType({**SuiteDefaults.unused, "split": "--split", "text_field": "--text-field"})

    def check(self, settings: Settings, folders: Sequence[ModelFolder]) -> None:
        """Refuse options, and models that neither label words nor write text."""
        check_options(self.chosen(settings))
        self.refuse_unused(settings)
        for folder in folders:
            if not isinstance(folder, PredictionFile):
                _architecture(folder)
                choose_context(folder, settings.context_tokens)

    def read(self, path: Path, settings: Settings) -> NerItems:
        """Documents with their entities."""
        return read_items(path, self.chosen(settings))

    def load(self, folder: ModelFolder, settings: Settings, device: str) -> Any:
        """A classifier, a causal model, or the file of predictions itself."""
        if isinstance(folder, PredictionFile):
            return folder
        if _architecture(folder).endswith(CLASSIFIER):
            return load_classifier(folder, device, settings.context_tokens, settings.batch_size, self.chosen(settings).add_prefix_space)
        return load_model(folder, device, settings.context_tokens, settings.batch_size)

    def describe(self, model: Any, settings: Settings) -> dict[str, Any]:
        """What shapes the labels beyond the files of the model."""
        return {} if isinstance(model, PredictionFile) else super().describe(model, settings)

    def score(self, model: Any, items: NerItems, settings: Settings, advance: Advance) -> Predictions:
        """Predicted entities of all documents."""
        return predict(model, items, self.chosen(settings), settings.seed, advance)

    def summarise(self, scores: Sequence[Predictions], settings: Settings) -> Summary:
        """Figures, and their differences from a baseline."""
        return summarise(scores, self.chosen(settings), settings)


SUITE = Ner()


def _architecture(folder: ModelFolder) -> str:
    found = str((folder.config.get("architectures") or ["none"])[0])
    if not found.endswith((CLASSIFIER, *WRITERS)):
        raise ConfigError(
            f"{folder.path} holds a model of architecture {found}, which neither labels words (...{CLASSIFIER}) nor writes text "
            f"({', '.join('...' + name for name in WRITERS)}). Fine-tune it for token classification, or give a file of predictions."
        )
    return found
