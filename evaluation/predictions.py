"""A file of predictions in the place of a model, for suites that can score what any other program predicted.

Nothing is loaded and nothing is asked of a model; the digest of the file stands in results.json where that of the weights does,
so that results of the same predictions are known to be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.loading import ModelFolder, open_folder
from evaluation.suites import Suite
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import sha256_of_file

PREDICTIONS = "predictions of a file"


@dataclass(frozen=True)
class PredictionFile(ModelFolder):
    """Stands where a `ModelFolder` does; `path` is the file."""

    device: str = "none"

    def as_dict(self) -> dict[str, Any]:
        """Path and fingerprint for results.json."""
        return {"path": str(self.path.absolute()), "architecture": PREDICTIONS, "weights_sha256": sha256_of_file(self.path)}


def open_model(path: Path | str, suite: Suite) -> ModelFolder:
    """The Hugging Face folder at `path`, or the file of predictions for a suite that reads them."""
    path = Path(path)
    if not path.is_file():
        return open_folder(path)
    if not suite.reads_predictions:
        raise ConfigError(f"{path} is a file, but the suite {suite.name} asks a model. Expected a Hugging Face folder: check the path.")
    return PredictionFile(path, {}, (path,))
