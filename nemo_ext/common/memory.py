"""How much memory this process may still take, by what the kernel and a batch system's control group say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    """Where a version of control groups keeps a group's limit, its use, and the parts of that use that hold files' content."""

    limit: str
    used: str
    file_pages: tuple[str, ...]


_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
_VERSION_2 = _Files("memory.max", "memory.current", ("active_file", "inactive_file"))


def available_memory_bytes() -> int:
    """The memory that is free or can be freed, or what is left of the control group's limit if that is less.

    Source: MemAvailable of proc(5); the kernel's memory controllers, of control groups of version 2 and of version 1.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    return max(0, min([available, *_left_in_groups(Path("/proc/self/cgroup").read_text(), _CONTROL_GROUPS)]))


def _left_in_groups(own: str, root: Path) -> list[int]:
    """Bytes left of each limit on the groups below `root` that hold this process, which `own` names as /proc/self/cgroup does."""
    left = []
    for line in own.splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (root / "memory", _VERSION_1) if controllers else (root, _VERSION_2)
        group = top / name.lstrip("/")
        around = [group, *(parent for parent in group.parents if top in (parent, *parent.parents))]
        left += [_left(folder, files) for folder in around if _is_limited(folder, files)]
    return left


def _is_limited(group: Path, files: _Files) -> bool:
    limit, used = group / files.limit, group / files.used
    return limit.is_file() and used.is_file() and limit.read_text().strip() != "max"


def _left(group: Path, files: _Files) -> int:
    """What is left of a group's limit: files that were read or written count as used, but the kernel drops them for whoever needs room."""
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    freeable = sum(int(statistics.get(name, 0)) for name in files.file_pages)
    return int((group / files.limit).read_text()) - int((group / files.used).read_text()) + freeable
