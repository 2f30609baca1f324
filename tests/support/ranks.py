"""Run a function on real gloo ranks, in processes of their own, without paying for imports each time.

Ranks are forked from one helper process that has imported Megatron and NeMo already, so that the ten seconds of import
are paid once per session, and Megatron's globals never leak from one test into the next. Also the way to run anything
of Megatron on a single rank in a test.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
GRACE_S = 3.0  # after one rank has failed, how long the others may take to report what they saw


class RankError(AssertionError):
    """A rank raised, died or did not finish; the message holds the traceback of every rank that said something."""


def run_ranks(ranks: int, function: Callable[..., Any], *args: Any, timeout_s: float = 120.0) -> list[Any]:
    """Call `function(*args)` on `ranks` gloo ranks and return their results, by rank.

    `function`, `args` and results must be picklable, `function` importable by name. In it torch.distributed is
    initialised (world size `ranks`), and Megatron's parallel state is not. One CPU thread per rank.
    Raises RankError with tracebacks when a rank fails, and with all stacks when the ranks take longer than `timeout_s`.
    """
    context = _context()
    with tempfile.TemporaryDirectory(prefix="sibol-ranks-") as folder:
        payload = pickle.dumps((function, args))
        readers: list[Connection] = []
        processes = []
        for rank in range(ranks):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_rank_main, args=(rank, ranks, folder, payload, writer, timeout_s), daemon=False)
            process.start()
            writer.close()
            readers.append(reader)
            processes.append(process)
        try:
            results = _collect(readers, processes, Path(folder), timeout_s)
            for process in processes:
                process.join(GRACE_S)
            return results
        finally:
            _end(processes)


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preload"])
    # The helper process reads these when it starts. Its `sys.path` is not ours, and an import that fails in it is ignored.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(REPOSITORY) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, paths)])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return context


def _rank_main(rank: int, ranks: int, folder: str, payload: bytes, writer: Connection, timeout_s: float) -> None:
    """Body of a rank: initialise gloo through a file, call, send back `(succeeded, pickled result or traceback)`."""
    stack_file = open(_stacks_of(folder, rank), "w")  # noqa: SIM115  faulthandler writes to it until the process ends
    faulthandler.dump_traceback_later(timeout_s, file=stack_file)
    multiprocessing.set_start_method("fork", force=True)  # as in a rank that torchrun started; a child of a forkserver inherits that
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)})
    try:
        import torch

        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
        function, args = pickle.loads(payload)
        # Pickled here, because a connection would send tensors as handles of shared memory that ends with this process.
        message = (True, pickle.dumps(function(*args)))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:  # noqa: BLE001  whatever happened belongs in the test's report
        message = (False, traceback.format_exc().encode())
    faulthandler.cancel_dump_traceback_later()
    writer.send(message)
    writer.close()


def _stacks_of(folder: str | Path, rank: int) -> Path:
    return Path(folder) / f"stacks_{rank}.txt"


def _collect(readers: Sequence[Connection], processes: Sequence[Any], folder: Path, timeout_s: float) -> list[Any]:
    """Wait for every rank's message; after the first failure only for GRACE_S longer."""
    results: dict[int, Any] = {}
    failures: dict[int, str] = {}
    deadline = time.monotonic() + timeout_s + 1.0  # the ranks write their stacks at timeout_s
    while len(results) + len(failures) < len(readers):
        open_ranks = {reader: rank for rank, reader in enumerate(readers) if rank not in results and rank not in failures}
        ready = wait(list(open_ranks), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for reader in ready:
            assert isinstance(reader, Connection)
            rank = open_ranks[reader]
            try:
                succeeded, content = reader.recv()
            except EOFError:
                processes[rank].join(GRACE_S)
                succeeded, content = False, f"died without a word, exit code {processes[rank].exitcode}\n".encode()
            if succeeded:
                results[rank] = pickle.loads(content)
            else:
                failures[rank] = content.decode()
                deadline = min(deadline, time.monotonic() + GRACE_S)
    if failures:
        raise RankError("\n".join(f"rank {rank} of {len(readers)}:\n{text}" for rank, text in failures.items()))
    if len(results) < len(readers):
        late = [rank for rank in range(len(readers)) if rank not in results]
        stacks = "\n".join(f"rank {rank}:\n{_stacks_of(folder, rank).read_text()}" for rank in late if _stacks_of(folder, rank).exists())
        raise RankError(f"ranks {late} of {len(readers)} took longer than {timeout_s} s:\n{stacks}")
    return [results[rank] for rank in range(len(readers))]


def _end(processes: Sequence[Any]) -> None:
    """End what still runs: ranks that wait for one that failed, or hang."""
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()
