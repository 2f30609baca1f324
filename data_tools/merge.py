"""Finished units to a dataset: ids are put end to end by the kernel, indexes computed from lengths, the manifest comes last.

The result depends on the units alone, so one machine and twenty write the same bytes. Per document some 150 bytes of memory are held.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.bad_lines import QUARANTINE_NAME
from data_tools.encode import RECORD
from data_tools.shards import PLAN_FILE, SHARDS_FOLDER, Plan, find_shards, locked
from data_tools.split_files import write_split
from data_tools.splits import SPLIT_NAMES
from data_tools.unit_files import SUMMARY_FILE, UnitFiles
from nemo_ext.common.dataset import DATASET_SCHEMA, MANIFEST_NAME, TOKENIZER_FOLDER
from nemo_ext.common.errors import DataError, OutputExistsError
from nemo_ext.common.files import PARTIAL_SUFFIX, disk_errors, read_json, sync_folder, sync_tree, write_json

EXACT_DUPLICATE = "exact-duplicate"
UNTREATED = "vanilla"
DATASET_NAMES = (  # the manifest is removed first
    *(MANIFEST_NAME, TOKENIZER_FOLDER, QUARANTINE_NAME),
    *(f"{name}.{kind}" for name in SPLIT_NAMES for kind in ("bin", "idx")),
)
TAKEN_OVER = (
    *("tokenizer", "plugin", "seed", "prepend_bos", "append_eod", "sentences", "drop_duplicates"),
    *("split", "fields", "limits", "on_bad_line"),
)


def merge(out: Path) -> dict[str, Any]:
    """Make the dataset in `out` from all its shards and remove them; returns the manifest.

    Raises DataError naming shards that are missing, incomplete or foreign, and bad lines where they are errors; OutputExistsError when
    the folder has other files, too; DiskFullError.
    """
    if (out / MANIFEST_NAME).is_file() and not any((out / SHARDS_FOLDER).glob(f"*/{PLAN_FILE}")):
        shutil.rmtree(out / SHARDS_FOLDER, ignore_errors=True)  # the rest of a merge that was killed at its very end
        raise OutputExistsError(f"{out} is a complete dataset already and has no shards left to merge.")
    shards = find_shards(out)
    with locked(out / SHARDS_FOLDER):
        plan = read_json(shards[0] / PLAN_FILE, "plan of a shard")
        units = [UnitFiles(folder) for folder in _unit_folders(shards, plan["units"])]
        if plan["on_bad_line"] == "fail":
            _refuse_bad_lines(plan, units)
        refuse_foreign_files(out)
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
    records = [unit.records() for unit in units]
    kept = kept_documents(plan, records)
    manifest = manifest_of(plan, [unit.summary for unit in units], records, kept)
    for name, entry in manifest["splits"].items():
        entry |= write_split(units, records, kept, name, np.dtype(plan["dtype"]), target)
    if plan["on_bad_line"] == "quarantine":
        _write_quarantine(plan, units, target)
    return manifest


def kept_documents(plan: Plan, records: Sequence[NDArray[Any]]) -> list[NDArray[np.bool_]]:
    """Which documents of every unit stay: all, or those whose text did not occur before."""
    kept = np.ones(sum(map(len, records)), dtype=bool)
    if plan["drop_duplicates"] and len(kept):
        hashes = np.concatenate([part["hash"] for part in records])
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: the first of equal ones comes first
        again = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
        kept[order[1:][again]] = False
    return np.split(kept, np.cumsum([len(part) for part in records])[:-1]) if records else []


def manifest_of(
    plan: Plan, summaries: Sequence[dict[str, Any]], records: Sequence[NDArray[Any]], kept: Sequence[NDArray[np.bool_]]
) -> dict[str, Any]:
    """The manifest, less what is known of files. Raises DataError when nothing is left to train on, or a plugin did nothing."""
    documents = np.concatenate([np.zeros(0, RECORD), *(part[mask] for part, mask in zip(records, kept, strict=True))])
    skipped = _total(summaries, "skipped") + Counter(plan["passed_over"])
    if duplicates := sum(map(len, records)) - len(documents):
        skipped[EXACT_DUPLICATE] = duplicates
    manifest = {
        "schema": DATASET_SCHEMA,
        **{key: plan[key] for key in TAKEN_OVER},
        "encoder": plan["encoder"] | dict(sorted(_total(summaries, "encoder_counts").items())),
        "plugin_counts": dict(sorted(_total(summaries, "plugin_counts").items())),
        "inputs": _inputs(plan, summaries),
        "splits": _splits(documents),
        "skipped": dict(sorted(skipped.items())),
        "duplicate_documents": len(documents) - len(np.unique(documents["number"])),
        "created": plan["created"],
    }
    _require_train(manifest)
    _require_treatment(manifest)
    return manifest


def _total(summaries: Iterable[dict[str, Any]], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary[key])
    return total


def _splits(documents: NDArray[Any]) -> dict[str, dict[str, Any]]:
    splits: dict[str, dict[str, Any]] = {}
    for position, name in enumerate(SPLIT_NAMES):
        if (chosen := documents["split"] == position).any():
            splits[name] = {"documents": int(chosen.sum())} | {key: int(documents[key][chosen].sum()) for key in ("tokens", "bytes")}
    return splits


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


def _require_treatment(manifest: dict[str, Any]) -> None:
    """A plugin that changed nothing would be taken for an arm of a study that it is not."""
    counts = manifest["plugin_counts"]
    if manifest["plugin"]["name"] == UNTREATED or counts["documents_changed"] or not counts["documents"]:
        return
    raise DataError(
        f"Tokenizer plugin {manifest['plugin']['name']!r} with settings {manifest['plugin']['settings']} changed none of "
        f"{counts['documents']:,} documents: the dataset would be the untreated one under another name. Expected at least one changed "
        "document. Choose stronger settings, longer documents, or --plugin vanilla."
    )


def _write_quarantine(plan: Plan, units: Iterable[UnitFiles], target: Path) -> None:
    with open(target / QUARANTINE_NAME, "w", encoding="utf-8") as handle:
        for record in _rejects(plan, units):
            handle.write(json.dumps(record, ensure_ascii=False) + "\n")


def _rejects(plan: Plan, units: Iterable[UnitFiles]) -> Iterator[dict[str, Any]]:
    """Lines of all units that hold no document, with their number in the whole file."""
    lines_before: Counter[int] = Counter()
    for unit in units:
        for record in unit.rejects():
            number, line = record["file"], record["line"]
            yield record | {"file": plan["inputs"][number]["path"], "line": line and line + max(0, lines_before[number] - 1)}
        for part in unit.summary["files"]:
            lines_before[part["file"]] += part["lines"]


def _refuse_bad_lines(plan: Plan, units: Iterable[UnitFiles]) -> None:
    """Raise DataError for the first line without a document: of a shard that failed at one, the units are there all the same."""
    if record := next(_rejects(plan, units), None):
        place = f"{record['file']}:{record['line']}" if record["line"] else record["file"]
        raise DataError(
            f"{place}: {record['reason']} ({record['detail']}).\nMend it and run `sibol data prepare --shard` of all shards again, or do "
            "so with --on-bad-line skip or quarantine: finished work is kept. Then merge again."
        )


def refuse_foreign_files(out: Path) -> None:
    """Raise OutputExistsError when a folder has anything that no dataset has: what is replaced is removed, and that is never."""
    if foreign := sorted({path.name for path in out.iterdir()} - {*DATASET_NAMES, SHARDS_FOLDER}) if out.is_dir() else []:
        raise OutputExistsError(
            f"{out} has {', '.join(foreign[:3])}{' and more' if foreign[3:] else ''} beside a dataset, which would be lost. Move that "
            "away, or choose another place."
        )


def _publish(target: Path, out: Path) -> None:
    """Move the finished files to their place. Without its manifest, which leaves first and comes last, no folder counts as a dataset."""
    for path in (out / name for name in DATASET_NAMES):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
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
