"""Half-written folders of processes that were killed: recognised by an owner file and removed, never those of a live process."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

from nemo_ext.common.errors import DataError
from nemo_ext.common.files import PARTIAL_SUFFIX, read_json

OWNER_FILE = ".owner.json"


def claim(folder: Path) -> None:
    """Note in a half-written folder which process on which machine is writing it."""
    owner = {"host": socket.gethostname(), "pid": os.getpid()}
    (folder / OWNER_FILE).write_text(json.dumps(owner), encoding="utf-8")


def release(folder: Path) -> None:
    """Take the note away; the folder is complete."""
    (folder / OWNER_FILE).unlink()


def remove_leftovers(out: Path) -> list[Path]:
    """Remove what killed processes of this machine left of `out`; returns the removed folders.

    Folders of other machines stay, because nobody here can tell whether their process still lives.
    """
    if not out.parent.is_dir():
        return []
    pattern = re.compile(rf"\.{re.escape(out.name)}\.\d+{re.escape(PARTIAL_SUFFIX)}")
    dead = [folder for folder in sorted(out.parent.iterdir()) if pattern.fullmatch(folder.name) and _is_abandoned(folder)]
    for folder in dead:
        shutil.rmtree(folder)
    return dead


def _is_abandoned(folder: Path) -> bool:
    try:
        owner = read_json(folder / OWNER_FILE, "owner file")
    except DataError:
        return False
    return owner["host"] == socket.gethostname() and not _is_alive(owner["pid"])


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks without disturbing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
