"""Encodes work units, in this process or in several: the same files for any number of workers, each unit done or not done."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.documents import field_names
from data_tools.encode import Encoder, EncodeSettings
from data_tools.inputs import InputFile
from data_tools.unit_files import UnitWriter
from data_tools.units import Part, PartReader, Unit, batches
from nemo_ext.common.errors import DataError, SibolError
from nemo_ext.common.files import atomic_folder, sha256_of_file
from nemo_ext.common.processes import end_with_parent
from nemo_ext.tokenizers import TextTokenizer, load

UNITS_PER_WORKER = 2  # waiting units, so that no worker waits for the parent
REPORT_EVERY_S = 0.2
THREADS_VARIABLE = "TOKENIZERS_PARALLELISM"
FORK, SPAWN = "fork", "spawn"


@dataclass(frozen=True)
class Job:
    """What workers have in common. `folder` holds the finished units; None: count only, write nothing."""

    files: tuple[InputFile, ...]
    settings: EncodeSettings
    folder: Path | None


Summary = dict[str, Any]
OnWork = Callable[[int, int], None]  # bytes of input and tokens of output since the last call


def encode_unit(job: Job, encoder: Encoder, unit: Unit, on_work: OnWork) -> Summary:
    """Encode one unit into its folder; returns its summary. Raises DataError when an input is damaged or changes meanwhile."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(atomic_folder(job.folder / unit.name)) if job.folder is not None else None
        writer = stack.enter_context(UnitWriter(folder, encoder.dtype))
        files = [_encode_part(job, encoder, part, writer, on_work) for part in unit.parts]
        return writer.finish(files, encoder.take_counts())


def _encode_part(job: Job, encoder: Encoder, part: Part, writer: UnitWriter, on_work: OnWork) -> dict[str, Any]:
    file, line, reported = job.files[part.file], 0, 0
    before, reader = _state(file), PartReader(file, part, field_names(job.settings.text_field, job.settings.id_field))
    for batch in batches(iter(reader)):
        encoded = encoder(batch)
        writer.add(encoded)
        line = batch[-1].line
        on_work(reader.bytes_read - reported, len(encoded.sequences.ids))
        reported = reader.bytes_read
    on_work(part.size_bytes - reported, 0)
    found: dict[str, Any] = {"file": part.file, "lines": max(0, line - (part.start > 0))} | before
    if part.start == 0:
        found["sha256"] = sha256_of_file(file.path)  # of the whole file, by whoever begins it
    if before["bytes"] != file.size_bytes or _state(file) != before:
        raise DataError(f"Input {file.path} changed while it was read. Wait until it is complete, then run the same command again.")
    return found


def _state(file: InputFile) -> dict[str, int]:
    status = os.stat(file.path)
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def is_current(summary: Summary, files: tuple[InputFile, ...]) -> bool:
    """Whether the inputs of a finished unit are still what they were."""
    return all({key: part[key] for key in ("bytes", "mtime_ns")} == _state(files[part["file"]]) for part in summary["files"])


def encode_units(job: Job, tokenizer: TextTokenizer, units: list[Unit], workers: int, on_work: OnWork) -> Generator[Summary, None, None]:
    """Summaries of units, in order. One worker is this process. Raises SibolError when a worker process dies."""
    with _one_thread():
        if workers == 1:
            encoder = Encoder(job.settings, tokenizer)
            for unit in units:
                yield encode_unit(job, encoder, unit, on_work)
        else:
            yield from _encode_in_pool(job, tokenizer, units, workers, on_work)


def _encode_in_pool(job: Job, tokenizer: TextTokenizer, units: list[Unit], workers: int, on_work: OnWork) -> Generator[Summary, None, None]:
    method = start_method(job.files)
    context = multiprocessing.get_context(method)
    work = context.Array("q", 2)
    encoder = Encoder(job.settings, tokenizer) if method == FORK else None
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(job, encoder, work))
    try:
        yield from _in_order(pool, units, workers * UNITS_PER_WORKER, _reporter(work, on_work))
    except BrokenProcessPool:
        raise SibolError(
            "A worker process died, perhaps for lack of memory. Use fewer --workers or give the job more memory, then run the same "
            "command again: finished work is kept."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def start_method(files: Sequence[InputFile]) -> str:
    """How workers are started: forked, with everything loaded, unless a thread may hold a lock then that the child would wait for.

    The threads of `tokenizers` do no harm: a worker uses none. Arrow, which reads tables, has some that it cannot do without.
    """
    harmless = sys.platform == "linux" and threading.active_count() == 1 and not any(file.is_table for file in files)
    return FORK if harmless else SPAWN


def _reporter(work: Any, on_work: OnWork) -> Callable[[], None]:
    seen = [0, 0]

    def report() -> None:
        now = list(work.get_obj())  # without the lock, which a killed worker may hold
        on_work(now[0] - seen[0], now[1] - seen[1])
        seen[:] = now

    return report


def _in_order(pool: ProcessPoolExecutor, units: list[Unit], window: int, report: Callable[[], None]) -> Iterator[Summary]:
    waiting: deque[Future[Summary]] = deque()
    for unit in units:
        waiting.append(pool.submit(_encode_in_worker, unit))
        if len(waiting) >= window:
            yield _result(waiting.popleft(), report)
    while waiting:
        yield _result(waiting.popleft(), report)


def _result(future: Future[Summary], report: Callable[[], None]) -> Summary:
    while not wait([future], REPORT_EVERY_S).done:
        report()
    report()
    return future.result()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A worker is one thread; more of them are asked for with more workers."""
    before = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before


_worker: tuple[Job, Encoder, OnWork] | None = None  # one per worker process, made by its initializer


def _start_worker(job: Job, encoder: Encoder | None, work: Any) -> None:
    global _worker
    os.environ[THREADS_VARIABLE] = "false"  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the parent
    end_with_parent(signal.SIGKILL)  # a killed parent cannot tell its workers, and they would wait for work forever

    def count(size_bytes: int, tokens: int) -> None:
        with work.get_lock():
            work[0] += size_bytes
            work[1] += tokens

    _worker = (job, encoder or Encoder(job.settings, load(job.settings.tokenizer_dir)), count)


def _encode_in_worker(unit: Unit) -> Summary:
    assert _worker is not None, "the pool's initializer ran first"
    job, encoder, count = _worker
    return encode_unit(job, encoder, unit, count)
