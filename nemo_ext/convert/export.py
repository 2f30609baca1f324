"""Megatron checkpoint -> Hugging Face folder, streamed, verified and published in one rename.

Needs neither a GPU nor NeMo for the weights themselves: they go from the checkpoint's files to safetensors in pieces. Only the
verification builds the model. What the folder came from is in its provenance.json. Training state is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import CheckpointError, ConfigError
from nemo_ext.common.files import read_json, refuse_existing, sha256_of_file, sha256_of_json, write_json
from nemo_ext.convert.hf_folder import is_checkpoint, model_card, write_model_files
from nemo_ext.convert.provenance import provenance_record
from nemo_ext.convert.rules import layer_count
from nemo_ext.convert.staging import Progress, staged_folder
from nemo_ext.convert.writer import GIBIBYTE

if TYPE_CHECKING:
    from nemo_ext.convert.checkpoint import CheckpointWeights
    from nemo_ext.convert.stream import StreamReport


@dataclass(frozen=True)
class ExportReport:
    """An export that was published: its folder, figures of its weights, and the verification's figures if it was made."""

    folder: Path
    step: int | None
    dtype: str
    tensors: int
    parameters: int
    bytes: int
    fingerprint: str
    verification: dict[str, Any] | None


def export_checkpoint(
    weights_dir: Path | str,
    hf_config: Mapping[str, Any],
    model_files_dir: Path | str,
    out_dir: Path | str,
    dtype: str | None = None,
    max_shard_bytes: int = 5 * GIBIBYTE,
    overwrite: bool = False,
    verify: bool | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> ExportReport:
    """Write the Hugging Face folder `out_dir` from a checkpoint's `weights` folder.

    hf_config: config.json of the trained model, with the true vocab_size. model_files_dir: folder with the tokenizer's files.
    dtype: "fp32", "bf16" or "fp16"; None keeps the checkpoint's.
    provenance: what is known of the run, recorded as it is under "run", "dataset" and "source".
    verify: compare the logits before publishing; None does so if the model fits into memory.
    progress: called with (bytes done, bytes in all). workers: how many files are written at a time.
    Started again after a kill, it keeps the files that are complete.
    Raises CheckpointError (incomplete checkpoint), OutputExistsError, and ConversionError (anything that does not fit, or
    logits other than Megatron's). Nothing is published unless all is well.
    """
    from nemo_ext.convert.checkpoint import CheckpointWeights
    from nemo_ext.convert.stream import stream_weights, torch_dtype
    from nemo_ext.models.family import family_of

    refuse_existing(out_dir, overwrite)
    source = CheckpointWeights(weights_dir, family_of(hf_config).build_mapping(hf_config), layer_count(hf_config))
    target = torch_dtype(dtype) if dtype else source.stored_dtype()
    name = str(target).removeprefix("torch.")
    plan = {"kind": "export", "source": source.identity(), "config": sha256_of_json(dict(hf_config)), "dtype": name}
    with staged_folder(out_dir, {**plan, "max_shard_bytes": max_shard_bytes}, overwrite) as staged:
        written = stream_weights(source.table, source, staged, target, max_shard_bytes, workers, progress)
        record = _provenance(source, written, name, provenance or {})
        _write_documents(staged.content, hf_config, model_files_dir, record)
        verification = _verified(weights_dir, staged.content, name, verify)
    return ExportReport(Path(out_dir), record["source"].get("step"), **record["weights"], verification=verification)


def _verified(weights_dir: Path | str, folder: Path, dtype: str, verify: bool | None) -> dict[str, Any] | None:
    from nemo_ext.convert.verify import verify_unless_too_large

    if verify is False:
        return None
    return verify_unless_too_large(weights_dir, folder, read_json(folder / "config.json"), dtype, folder / "verify.json", bool(verify))


def _write_documents(folder: Path, hf_config: Mapping[str, Any], model_files_dir: Path | str, record: Mapping[str, Any]) -> None:
    write_model_files(folder, hf_config, record["weights"]["dtype"], model_files_dir)
    write_json(folder / "provenance.json", record)
    (folder / "README.md").write_text(model_card(hf_config, record), encoding="utf-8")


def export_folder(start: Path | str, out_dir: Path | str, step: int | None = None, **options: Any) -> ExportReport:
    """Export an imported checkpoint, or a checkpoint of a run folder as `export_run` does."""
    start = Path(start)
    if not is_checkpoint(start):
        return export_run(start, out_dir, step, **options)
    if step is not None:
        raise ConfigError(f"--step {step}: {start} is an imported checkpoint, which has no steps. Leave --step out.")
    hf_config = read_json(start / "model" / "config.json", "config of the imported model")
    earlier = read_json(start / "provenance.json", "provenance of the imported checkpoint")
    known = {"source": {"checkpoint": str(start), "imported": earlier}}
    return export_checkpoint(start / "weights", hf_config, start / "model", out_dir, provenance=known, **options)


def export_run(run_dir: Path | str, out_dir: Path | str, step: int | None = None, **options: Any) -> ExportReport:
    """Export a checkpoint of a run folder: that of `step`, or the newest complete one. `options` are those of `export_checkpoint`.

    Raises CheckpointError when the run has no complete checkpoint, or none of that step.
    """
    from nemo_ext.engine.run_folder import RunFolder

    folder = RunFolder(run_dir)
    refuse_existing(out_dir, options.get("overwrite", False))
    checkpoint = _choose(folder, step)
    hf_config = read_json(folder.model / "config.json", "the run's model config")
    return export_checkpoint(checkpoint / "weights", hf_config, folder.model, out_dir, provenance=_run_facts(folder, checkpoint), **options)


def _choose(folder: Any, step: int | None) -> Path:
    steps = folder.steps()
    if not steps:
        raise CheckpointError(
            f"{folder.path} has no complete checkpoint in {folder.checkpoints}. Give a run folder (RUN/run.yaml), or train longer."
        )
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder.path} has no complete checkpoint of step {step}. It has: {', '.join(map(str, steps))}.")
    return folder.checkpoint(steps[-1] if step is None else step)


def _run_facts(folder: Any, checkpoint: Path) -> dict[str, Any]:
    """What the run folder says about where the weights come from."""
    from nemo_ext.config import from_yaml
    from nemo_ext.engine.run_folder import read_state

    state, config = read_state(checkpoint), from_yaml(folder.settings)
    return {
        "source": {"checkpoint": str(checkpoint), "step": state.get("step"), "state": state},
        "run": {
            "name": config.name,
            "folder": str(folder.path),
            "run_yaml_sha256": sha256_of_file(folder.settings),
            "init_from": config.model.init_from,
        },
        "dataset": {"path": config.data.path or config.data.blend, "fingerprint": state.get("dataset_fingerprint")},
    }


def _provenance(source: CheckpointWeights, written: StreamReport, dtype: str, known: Mapping[str, Any]) -> dict[str, Any]:
    stored = {str(kind).removeprefix("torch."): count for kind, count in source.dtypes.items()}
    origin = {
        "weights": source.name,
        "metadata_sha256": sha256_of_file(source.weights_dir / ".metadata"),
        "stored_dtypes": stored,
        "entries_left_out": dict(source.excluded),
        **known.get("source", {}),
    }
    return provenance_record({**known, "source": origin, "weights": {"dtype": dtype, **asdict(written)}})
