"""The weights that a run starts from, for its ranks and, as a Hugging Face folder, for the evaluation's baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_ext.common.files import read_json
from nemo_ext.config import RunConfig, from_yaml
from nemo_ext.convert.checkpoint import CheckpointWeights
from nemo_ext.convert.hf_folder import is_checkpoint
from nemo_ext.convert.rules import Rule, layer_count
from nemo_ext.convert.seeded import SeededWeights
from nemo_ext.convert.sources import HuggingFaceWeights, WeightSource
from nemo_ext.convert.stream import StreamReport, write_hf_weights
from nemo_ext.models.family import family_of


def initial_weights(config: RunConfig, hf_config: Mapping[str, Any], rules: Sequence[Rule]) -> WeightSource:
    """The Hugging Face folder or imported checkpoint in `model.init_from`, or random weights from the run's seed."""
    if config.model.init_from:
        start = Path(config.model.init_from)
        if is_checkpoint(start):
            return CheckpointWeights(start / "weights", rules, layer_count(hf_config))
        return HuggingFaceWeights(start, rules)
    return SeededWeights(config.train.seed, hf_config["initializer_range"], rules, layer_count(hf_config))


def export_initial(run_dir: Path | str, out_dir: Path | str, overwrite: bool = False) -> StreamReport:
    """Write the model as it was before the run's first step, in fp32, to a Hugging Face folder."""
    from nemo_ext.engine.run_folder import RunFolder

    folder = RunFolder(run_dir)
    hf_config = read_json(folder.model / "config.json", "the run's model config")
    rules = family_of(hf_config).build_mapping(hf_config)
    source = initial_weights(from_yaml(folder.settings), hf_config, rules)
    return write_hf_weights(hf_config, rules, source, out_dir, model_files_dir=folder.model, overwrite=overwrite)
