"""Finished units to a dataset: ids are put end to end by the kernel, indexes computed from lengths, the manifest comes last.

The result depends on the units alone, so one machine and twenty write the same bytes. Per document some 60 bytes of memory are held.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data_tools.bad_lines import QUARANTINE_NAME
from data_tools.indexed import write_index
from data_tools.shards import PLAN_FILE, SHARDS_FOLDER, Plan, find_shards, locked
from data_tools.splits import SPLIT_NAMES
from data_tools.unit_files import SUMMARY_FILE, UnitFiles
from nemo_ext.common.dataset import DATASET_SCHEMA, MANIFEST_NAME, TOKENIZER_FOLDER
from nemo_ext.common.errors import DataError, OutputExistsError
from nemo_ext.common.files import PARTIAL_SUFFIX, disk_errors, read_json, sync_folder, sync_tree, write_json

COPY_BYTES = 1 << 22
NO_KERNEL_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # across file systems, old kernels, some network disks


def merge(out: Path) -> dict[str, Any]:
    """Make the dataset in `out` from all its shards and remove them; returns the manifest.

    Raises DataError naming shards that are missing, incomplete or foreign, OutputExistsError, DiskFullError.
    """
    if not (out / SHARDS_FOLDER).is_dir() and (out / MANIFEST_NAME).is_file():
        raise OutputExistsError(f"{out} is a complete dataset already and has no shards left to merge.")
    shards = find_shards(out)
    with locked(out / SHARDS_FOLDER):
        plan = read_json(shards[0] / PLAN_FILE, "plan of a shard")
        units = [UnitFiles(folder) for folder in _unit_folders(shards, plan["units"])]
        target = out / SHARDS_FOLDER / f".dataset{PARTIAL_SUFFIX}"
        shutil.rmtree(target, ignore_errors=True)
        try:
            with disk_errors(out):
                target.mkdir()
                manifest = _write(plan, units, target)
                shutil.copytree(shards[0] / TOKENIZER_FOLDER, target / TOKENIZER_FOLDER)
                write_json(target / MANIFEST_NAME, manifest)
                sync_tree(target)
                _publish(target, out)
        finally:
            shutil.rmtree(target, ignore_errors=True)
    _remove_shards(out)
    return manifest


def _unit_folders(shards: list[Path], count: int) -> list[Path]:
    folders = [shards[number % len(shards)] / f"{number:06d}" for number in range(count)]
    missing = Counter(folder.parent.name for folder in folders if not (folder / SUMMARY_FILE).is_file())
    if missing:
        shown = ", ".join(f"{name.replace('-of-', '/')} ({number} units)" for name, number in missing.items())
        raise DataError(f"Incomplete shards: {shown} are not finished. Run their `sibol data prepare --shard` again, then merge again.")
    return folders


def _write(plan: Plan, units: Sequence[UnitFiles], target: Path) -> dict[str, Any]:
    """Everything but the tokenizer; returns the manifest."""
    manifest = manifest_of(plan, [unit.summary for unit in units], [unit.records() for unit in units])
    for name, entry in manifest["splits"].items():
        entry |= _write_split(units, name, np.dtype(plan["dtype"]), target)
    if plan["on_bad_line"] == "quarantine":
        _write_quarantine(plan, units, target)
    return manifest


def manifest_of(plan: Plan, summaries: Sequence[dict[str, Any]], records: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """The manifest, less what is known of files. Raises DataError when nothing is left to train on."""
    numbers = np.concatenate([part["number"] for part in records]) if records else np.zeros(0, np.uint64)
    skipped = sum((Counter(summary["skipped"]) for summary in summaries), Counter(plan["passed_over"]))
    splits: dict[str, dict[str, Any]] = {}
    for name in SPLIT_NAMES:
        counted = [summary["splits"][name] for summary in summaries if name in summary["splits"]]
        if counted:
            splits[name] = {key: sum(counts[key] for counts in counted) for key in counted[0]}
    kept = ("tokenizer", "plugin", "seed", "append_eod", "split", "fields", "limits", "on_bad_line")
    manifest = {
        "schema": DATASET_SCHEMA,
        **{key: plan[key] for key in kept},
        "inputs": _inputs(plan, summaries),
        "splits": splits,
        "skipped": dict(sorted(skipped.items())),
        "duplicate_documents": len(numbers) - len(np.unique(numbers)),
        "created": plan["created"],
    }
    _require_train(manifest)
    return manifest


def _inputs(plan: Plan, summaries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Path, size and digest of every input. Raises DataError when two units saw different states of one."""
    seen: dict[int, tuple[int, int]] = {}
    digests: dict[int, str] = {}
    for part in (part for summary in summaries for part in summary["files"]):
        state = (part["bytes"], part["mtime_ns"])
        if seen.setdefault(part["file"], state) != state:
            raise DataError(
                f"Input {plan['inputs'][part['file']]['path']} was changed while shards were prepared from it, or copied without its time "
                "of change (cp -p, rsync -a keep it). Run the same commands again: what is out of date is encoded again."
            )
        digests |= {part["file"]: part["sha256"]} if "sha256" in part else {}
    return [file | {"sha256": digests[number]} for number, file in enumerate(plan["inputs"])]


def _require_train(manifest: dict[str, Any]) -> None:
    if "train" in manifest["splits"]:
        return
    skipped = ", ".join(f"{count} {reason}" for reason, count in manifest["skipped"].items()) or "nothing skipped"
    documents = sum(split["documents"] for split in manifest["splits"].values())
    raise DataError(
        f"The train split would be empty: {documents} documents in all, {skipped}. Check the inputs, --text-field "
        f"({manifest['fields']['text']}), --min-tokens ({manifest['limits']['min_tokens']}) and --split ({manifest['split']})."
    )


def _write_split(units: Sequence[UnitFiles], name: str, dtype: np.dtype[Any], target: Path) -> dict[str, Any]:
    lengths, sequences = [], []
    with open(target / f"{name}.bin", "wb") as handle:
        for unit in (unit for unit in units if name in unit.summary["splits"]):
            records = unit.records()
            sequences.append(records["sequences"][records["split"] == SPLIT_NAMES.index(name)])
            lengths.append(unit.lengths(name))
            _copy(unit.ids_path(name), handle)
    index = write_index(target / f"{name}.idx", dtype, lengths, sequences)
    bin_bytes, max_token_id, bin_sha256 = _examine(target / f"{name}.bin", dtype)
    return {
        "max_token_id": max_token_id,
        "bin_bytes": bin_bytes,
        "idx_bytes": index.size_bytes,
        "bin_sha256": bin_sha256,
        "idx_sha256": index.sha256,
    }


def _copy(source: Path, target: IO[bytes]) -> None:
    """Append a file to another within the kernel, or through a buffer where that cannot be done."""
    with open(source, "rb", buffering=0) as handle:
        try:
            while os.copy_file_range(handle.fileno(), target.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in NO_KERNEL_COPY:
                raise
            shutil.copyfileobj(handle, target, COPY_BYTES)
            target.flush()


def _examine(path: Path, dtype: np.dtype[Any]) -> tuple[int, int, str]:
    """Size, largest id (-1 without tokens) and SHA-256 of a finished .bin, read once."""
    digest, size_bytes, largest = hashlib.sha256(), 0, -1
    with open(path, "rb", buffering=0) as handle:
        while block := handle.read(COPY_BYTES):
            digest.update(block)
            size_bytes += len(block)
            largest = max(largest, int(np.frombuffer(block, dtype).max()))
    return size_bytes, largest, digest.hexdigest()


def _write_quarantine(plan: Plan, units: Iterable[UnitFiles], target: Path) -> None:
    """Lines of all units that hold no document, with their number in the whole file."""
    lines_before: Counter[int] = Counter()
    with open(target / QUARANTINE_NAME, "w", encoding="utf-8") as handle:
        for unit in units:
            for record in unit.rejects():
                number, line = record["file"], record["line"]
                placed = {"file": plan["inputs"][number]["path"], "line": line and line + max(0, lines_before[number] - 1)}
                handle.write(json.dumps(record | placed, ensure_ascii=False) + "\n")
            for part in unit.summary["files"]:
                lines_before[part["file"]] += part["lines"]


def _publish(target: Path, out: Path) -> None:
    """Move the finished files to their place. Without its manifest, which leaves first and comes last, no folder counts as a dataset."""
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    for path in out.iterdir():
        if path.name != SHARDS_FOLDER:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in target.iterdir():
        if path.name != MANIFEST_NAME:
            os.replace(path, out / path.name)
    sync_folder(out)
    os.replace(target / MANIFEST_NAME, out / MANIFEST_NAME)
    sync_folder(out)


def _remove_shards(out: Path) -> None:
    for plan in (out / SHARDS_FOLDER).glob(f"*/{PLAN_FILE}"):
        plan.unlink()  # first, so that what a kill leaves over is not taken for work
    shutil.rmtree(out / SHARDS_FOLDER)
