"""How much memory this process may still take, by what the kernel and a batch system's control group say."""

from __future__ import annotations

from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def available_memory_bytes() -> int:
    """The memory that is free or can be freed, or what is left of the control group's limit if that is less.

    Source: MemAvailable of proc(5); memory.max and memory.current of the kernel's control groups, version 2.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    for group in _own_groups():
        limit, used = group / "memory.max", group / "memory.current"
        if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
            available = min(available, int(limit.read_text()) - int(used.read_text()))
    return max(0, available)


def _own_groups() -> list[Path]:
    """This process's control group and those around it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, _, name = line.split(":", 2)
        if number == "0":
            group = _CONTROL_GROUPS / name.lstrip("/")
            return [group, *(parent for parent in group.parents if _CONTROL_GROUPS in (parent, *parent.parents))]
    return []
