"""Locks on files: one process at a time, on whatever machine; the kernel releases them however a process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nemo_ext.common.files import disk_errors

# What file systems without locks answer: Lustre that is mounted without them, NFS without its lock service, some of FUSE.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def locked_file(path: Path, wait: bool = False) -> Iterator[IO[str]]:
    """The file `path`, made if need be, open for reading and writing, with nobody else in such a block for it.

    Unless told to `wait`, raises BlockingIOError when somebody is. Where the file system has no locks, says so and goes on.
    A process must not lock a file twice at once. Its children do not hold its locks.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BlockingIOError(*error.args) from None
            if error.errno not in NO_LOCKS:
                raise
            print(f"{path} cannot be locked ({error.strerror}): see to it that nothing else writes there.", file=sys.stderr, flush=True)
        yield handle
