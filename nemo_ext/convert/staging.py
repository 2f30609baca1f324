"""Write a folder file by file, several at a time, so that a conversion that was killed goes on where it was.

The folder grows beside its destination under a hidden name. A file is complete or not there, and beside each lies a record of
what went into it; started again with the same plan, a conversion keeps the files that have a record. Which bytes a file gets depends on the
plan alone, so the result is the same whether it was made in one go or in ten, by one worker or by many.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import DiskFullError, OutputExistsError
from nemo_ext.common.files import PARTIAL_SUFFIX, disk_errors, publish_folder, read_json, refuse_existing, write_json
from nemo_ext.convert.provenance import package_version

Progress = Callable[[int, int], None]  # (bytes done, bytes in all); what was kept counts as done from the first call on
MEBIBYTE = 2**20


@dataclass(frozen=True)
class FileJob:
    """One file: its path in the folder, about how large it becomes, and what writes it.

    write: `(path, report) -> record`, where `report(bytes)` tells of progress and `record` is JSON that is kept with the file.
    """

    name: str
    size_bytes: int
    write: Callable[[Path, Callable[[int], None]], dict[str, Any]]


class _Stopped(Exception):
    """Raised in workers when another one has failed."""


class StagedFolder:
    """The folder while it grows. `content` becomes the destination; `records` lie beside it."""

    def __init__(self, root: Path) -> None:
        self.root, self.content, self.records = root, root / "content", root / "records"

    def run(self, jobs: Sequence[FileJob], workers: int = 1, progress: Progress | None = None) -> list[dict[str, Any]]:
        """Write the files that are not there yet, `workers` at a time; returns the records of all, in the order of `jobs`.

        Raises DiskFullError before anything is written when the file system is too small for it.
        """
        kept = {job.name for job in jobs if self._is_kept(job)}
        self._require_space(sum(job.size_bytes for job in jobs if job.name not in kept))
        total, done = sum(job.size_bytes for job in jobs), sum(job.size_bytes for job in jobs if job.name in kept)
        lock, stop = threading.Lock(), threading.Event()

        def report(count: int) -> None:
            nonlocal done
            if stop.is_set():
                raise _Stopped
            with lock:
                done += count
                if progress:
                    progress(done, total)

        report(0)
        with ThreadPoolExecutor(workers, initializer=_compute_on_one_thread) as pool:
            futures = [pool.submit(self._write, job, report) for job in jobs if job.name not in kept]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
        return [read_json(self._record(job)) for job in jobs]

    def _write(self, job: FileJob, report: Callable[[int], None]) -> None:
        path = self.content / job.name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + PARTIAL_SUFFIX)
        with disk_errors(path):
            record = job.write(temporary, report)
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        write_json(self._record(job), {**record, "size_bytes": path.stat().st_size})

    def _record(self, job: FileJob) -> Path:
        return self.records / (job.name.replace("/", "_") + ".json")

    def _is_kept(self, job: FileJob) -> bool:
        path, record = self.content / job.name, self._record(job)
        return path.is_file() and record.is_file() and read_json(record)["size_bytes"] == path.stat().st_size

    def _require_space(self, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < needed_bytes:
            raise DiskFullError(
                f"{self.root.parent} has {free_bytes / MEBIBYTE:,.0f} MiB free, but {needed_bytes / MEBIBYTE:,.0f} MiB are still to be "
                "written. Nothing incomplete was left under its final name. Free some space or choose another output folder."
            )


@contextlib.contextmanager
def staged_folder(out: Path | str, plan: Mapping[str, Any], overwrite: bool = False) -> Iterator[StagedFolder]:
    """Give the folder that becomes `out` when the block ends without an error.

    plan: JSON that says what is written from what. What an interrupted run with the same plan completed is there already. When the disk
    is full or the process is killed it stays for the next try; after any other error, and after a success, nothing stays.
    Raises OutputExistsError when `out` is taken, or is being written by another process.
    """
    out = Path(out)
    refuse_existing(out, overwrite)
    root = out.with_name(f".{out.name}{PARTIAL_SUFFIX}")
    staged, keep = StagedFolder(root), False
    with disk_errors(out):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, out):
            try:
                _adopt(staged, plan)
                yield staged
                publish_folder(staged.content, out)
            except (OSError, DiskFullError, KeyboardInterrupt):
                keep = True
                raise
            finally:
                if not keep:
                    shutil.rmtree(root, ignore_errors=True)


def _adopt(staged: StagedFolder, plan: Mapping[str, Any]) -> None:
    """Keep what a run with the same plan, by the same versions, left; remove what any other left."""
    described = json.loads(json.dumps({**plan, "versions": {name: package_version(name) for name in ("sibol", "torch")}}))
    file = staged.root / "plan.json"
    if not file.is_file() or read_json(file) != described:
        for folder in (staged.content, staged.records):
            shutil.rmtree(folder, ignore_errors=True)
        write_json(file, described)
    for folder in (staged.content, staged.records):
        folder.mkdir(exist_ok=True)
    for leftover in staged.content.rglob(f"*{PARTIAL_SUFFIX}"):
        leftover.unlink()


@contextlib.contextmanager
def _locked(root: Path, out: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel releases however this process ends."""
    with open(root / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputExistsError(f"{out} is being written by another process. Wait for it, or choose another place.") from None
        yield


def _compute_on_one_thread() -> None:
    """Workers are the parallelism: each would otherwise start as many threads as there are cores."""
    import torch

    torch.set_num_threads(1)
