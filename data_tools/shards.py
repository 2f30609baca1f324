"""Work in progress on a dataset: OUT/.shards/7-of-20 has what one of 20 machines has finished; a run on one machine is shard 1 of 1.

A shard's folder holds its plan (options and inputs), a copy of the tokenizer and a folder for every finished unit. A lock that the
kernel drops with its process keeps two runs apart. Other plans, changed inputs and half-written units are begun anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_tools.inputs import InputFile
from data_tools.unit_files import SUMMARY_FILE
from data_tools.units import Unit
from data_tools.work import is_current
from nemo_ext.common.dataset import TOKENIZER_FOLDER
from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError
from nemo_ext.common.files import PARTIAL_SUFFIX, read_json, sync_tree, write_json
from nemo_ext.tokenizers import TextTokenizer

SHARDS_FOLDER = ".shards"
PLAN_FILE = "plan.json"
LOCK_FILE = ".lock"
LOCK_PATIENCE_S, LOCK_RETRY_S = 1.0, 0.05
SHARD_NAME = re.compile(r"(\d+)-of-(\d+)")

logger = logging.getLogger(__name__)
Plan = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `count`, counted from 1."""

    number: int = 1
    count: int = 1

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.number}-of-{self.count}"

    def units(self, units: list[Unit]) -> list[Unit]:
        """Its share of the units."""
        return units[self.number - 1 :: self.count]


def parse_shard(text: str) -> Shard:
    """ "7/20" as shard 7 of 20. Raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text!r}: expected NUMBER/COUNT with a number from 1 to the count, such as 7/20.")
    return Shard(int(match[1]), int(match[2]))


@contextlib.contextmanager
def open_shard(out: Path, shard: Shard, plan: Plan, tokenizer: TextTokenizer) -> Iterator[Path]:
    """The folder of a shard, locked, with the finished units of an earlier run under the same plan.

    Raises OutputExistsError while another process works on it.
    """
    folder = out / SHARDS_FOLDER / shard.name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
            shutil.rmtree(path)
        if not _same_plan(folder, plan):
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
            tokenizer.copy(folder / TOKENIZER_FOLDER)
            sync_tree(folder / TOKENIZER_FOLDER)
        write_json(folder / PLAN_FILE, plan)
        yield folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes. Raises OutputExistsError when one of them holds it."""
    with open(folder / LOCK_FILE, "w") as handle:
        if not _lock(handle):
            raise OutputExistsError(f"Another process is at work in {folder}. Wait for it, or choose another --out.")
        yield


def _lock(handle: IO[str]) -> bool:
    """Whether the lock was had in time: the workers of a process that was killed hold it until they, too, are gone."""
    end_s = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                return False
            time.sleep(LOCK_RETRY_S)
        else:
            return True


def _same_plan(folder: Path, plan: Plan) -> bool:
    """Whether the work found in `folder` counts. How bad lines are treated does not matter: a finished unit has them listed."""
    if not (folder / PLAN_FILE).exists():
        return False
    found = read_json(folder / PLAN_FILE, "plan of earlier work")
    changed = [key for key in sorted({*found, *plan}) if key != "on_bad_line" and found.get(key) != plan.get(key)]
    if changed:
        logger.warning("%s has work under another plan (%s differ): it is begun anew.", folder, ", ".join(changed))
    return not changed


def finished_units(folder: Path, units: list[Unit], files: tuple[InputFile, ...]) -> dict[int, dict[str, Any]]:
    """Summaries of the units, by number, that are done and whose inputs did not change; those that changed are removed."""
    done: dict[int, dict[str, Any]] = {}
    for unit in units:
        path = folder / unit.name
        if (path / SUMMARY_FILE).is_file():
            summary = read_json(path / SUMMARY_FILE, "summary of a finished unit")
            if is_current(summary, files):
                done[unit.number] = summary
                continue
            logger.warning("Input of %s changed since it was finished: it is encoded again.", path)
        shutil.rmtree(path, ignore_errors=True)
    return done


def find_shards(out: Path) -> list[Path]:
    """Folders of all shards in order. Raises DataError unless every one of them is there, with one plan."""
    folders = {match: path for path in _entries(out / SHARDS_FOLDER) if (match := SHARD_NAME.fullmatch(path.name))}
    counts = sorted({int(match[2]) for match in folders})
    if not counts:
        raise DataError(f"{out} has no shards to merge. Expected what `sibol data prepare --out {out} --shard 1/N` and so on write.")
    if len(counts) > 1:
        raise DataError(
            f"{out} has shards of different counts ({', '.join(sorted(path.name for path in folders.values()))}). Remove from "
            f"{out / SHARDS_FOLDER} those that do not belong, then merge again."
        )
    shards = [out / SHARDS_FOLDER / Shard(number, counts[0]).name for number in range(1, counts[0] + 1)]
    missing = [path.name.replace("-of-", "/") for path in shards if not (path / PLAN_FILE).is_file()]
    if missing:
        raise DataError(f"Missing shards of {out}: {', '.join(missing)}. Run `sibol data prepare` with --shard for each, then merge again.")
    _require_one_plan(shards)
    return shards


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _require_one_plan(shards: list[Path]) -> None:
    plans = [read_json(shard / PLAN_FILE, "plan of a shard") for shard in shards]
    for shard, plan in zip(shards, plans, strict=True):
        changed = [key for key in sorted({*plans[0], *plan}) if plan.get(key) != plans[0].get(key)]
        if changed:
            key = changed[0]
            raise DataError(
                f"Shard {shard.name} does not belong to shard {shards[0].name}: {', '.join(changed)} differ ({key}: {plan.get(key)} "
                f"against {plans[0].get(key)}). Prepare it again with the options, inputs and version of the others."
            )
