"""Hugging Face folder -> Megatron checkpoint, streamed: `weights/` for any tp and pp, `model/` with everything else.

No model is built; in memory are one or two pieces for each worker. The checkpoint is a start for runs (`model.init_from`), is read by
Megatron's and NeMo's own loaders, and becomes the same Hugging Face folder again with `export`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.files import read_json, refuse_existing, sha256_of_file, sha256_of_json, write_json
from nemo_ext.convert.hf_folder import write_model_files
from nemo_ext.convert.provenance import provenance_record
from nemo_ext.convert.rules import Table, layer_count
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.convert.staging import Progress, staged_folder

if TYPE_CHECKING:
    import torch

    from nemo_ext.convert.stream import StreamReport

MEBIBYTE = 2**20
FILE_BYTES = 1024 * MEBIBYTE  # large enough to write fast, small enough that little is lost with a killed process


@dataclass(frozen=True)
class ImportPlan:
    """What an import reads and writes. `conversions`: what becomes of stored dtypes -> elements."""

    hf_dir: Path
    hf_config: dict[str, Any]
    source: HuggingFaceWeights
    dtype: torch.dtype
    file_bytes: int

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def table(self) -> Table:
        return self.source.table

    @property
    def elements(self) -> int:
        """Elements of the checkpoint, the vocabulary's padding included."""
        return sum(prod(entry.rule.shape) for entry in self.table.entries())

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    @property
    def conversions(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name, shape in self.table.hf_shapes.items():
            key = f"{self.source.reader.stored(name).dtype} as {self.dtype_name}"
            counts[key] = counts.get(key, 0) + prod(shape)
        return counts

    def identity(self) -> dict[str, Any]:
        """What decides every byte of the result, as JSON."""
        config = sha256_of_json(self.hf_config)
        return {
            "kind": "import",
            "source": self.source.identity(),
            "config": config,
            "dtype": self.dtype_name,
            "file_bytes": self.file_bytes,
        }


@dataclass(frozen=True)
class ImportReport:
    """A checkpoint that was published. `verification` has the figures, or says under "skipped" why there are none."""

    folder: Path
    dtype: str
    tensors: int
    parameters: int
    bytes: int
    fingerprint: str
    conversions: dict[str, int]
    verification: dict[str, Any] | None


def plan_import(hf_dir: Path | str, dtype: str | None = None, file_bytes: int = FILE_BYTES) -> ImportPlan:
    """Check that a Hugging Face folder can be imported: its config, and that its tensors are those of the mapping table, each once.

    dtype: "fp32", "bf16" or "fp16"; None keeps the stored one. Raises ConversionError listing what does not fit.
    """
    from nemo_ext.convert.stream import torch_dtype
    from nemo_ext.models.family import family_of, read_model_config

    hf_config = read_model_config(Path(hf_dir))
    family = family_of(hf_config)
    family.check(hf_config)
    source = HuggingFaceWeights(hf_dir, family.build_mapping(hf_config), layer_count(hf_config))
    return ImportPlan(Path(hf_dir), hf_config, source, torch_dtype(dtype) if dtype else source.stored_dtype(), file_bytes)


def import_model(
    plan: ImportPlan,
    out_dir: Path | str,
    workers: int = 1,
    overwrite: bool = False,
    verify: bool | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Write the checkpoint `out_dir`. Started again after a kill, it keeps the files that are complete.

    verify: compare the logits of both models before publishing; None does so if the model fits into memory.
    Raises OutputExistsError, DiskFullError, and ConversionError when the weights are not finite or the logits differ.
    """
    from nemo_ext.convert.distributed_writer import write_weights
    from nemo_ext.convert.verify import verify_unless_too_large

    refuse_existing(out_dir, overwrite)
    with staged_folder(out_dir, plan.identity(), overwrite) as staged:
        written = write_weights(plan.table, plan.source, staged, plan.dtype, plan.file_bytes, workers, progress)
        model = staged.content / "model"
        model.mkdir(exist_ok=True)
        write_model_files(model, plan.hf_config, plan.dtype_name, plan.hf_dir)
        write_json(staged.content / "provenance.json", _record(plan, written))
        verification = None
        if verify is not False:
            verification = verify_unless_too_large(
                staged.content / "weights", plan.hf_dir, plan.hf_config, plan.dtype_name, staged.content / "verify.json", bool(verify)
            )
    return ImportReport(Path(out_dir), plan.dtype_name, **asdict(written), conversions=plan.conversions, verification=verification)


def _record(plan: ImportPlan, written: StreamReport) -> Mapping[str, Any]:
    """Content of provenance.json: where every value comes from, and what did not come along."""
    earlier, directory = plan.hf_dir / "provenance.json", plan.hf_dir.resolve()
    origin = {
        "folder": str(directory),
        "weights": plan.source.name,  # says which parts of a multimodal model are not in it
        "config_sha256": sha256_of_file(plan.hf_dir / "config.json"),
        "files": {name: size for name, size, _ in plan.source.identity()["files"]},
        "tensors_left_out": sorted(set(plan.source.reader.tensors) - set(plan.table.hf_shapes)),  # tied copies and derived buffers
        "provenance": read_json(earlier, "provenance of the source") if earlier.is_file() else None,
    }
    weights = {"dtype": plan.dtype_name, **asdict(written), "conversions": plan.conversions}
    return provenance_record({"source": origin, "weights": weights})
