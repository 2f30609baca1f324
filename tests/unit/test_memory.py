"""What a control group leaves of its limit: pages of files are not in the way, and the narrowest group around a process counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_ext.common.memory import _left_in_groups, available_memory_bytes


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.")).write_text(text + "\n")


def test_version_2_counts_pages_of_files_as_free(tmp_path: Path) -> None:
    write_group(tmp_path / "slurm/job/step", memory_max="max", memory_current="900", memory_stat="anon 900")
    statistics = "anon 300\nfile 620\nactive_file 200\ninactive_file 400"
    write_group(tmp_path / "slurm/job", memory_max="1000", memory_current="950", memory_stat=statistics)
    assert _left_in_groups("0::/slurm/job/step\n", tmp_path) == [1000 - 950 + 600]


def test_version_1_has_a_tree_for_memory_alone(tmp_path: Path) -> None:
    statistics = "cache 600\ntotal_active_file 150\ntotal_inactive_file 250\nactive_file 1"
    write_group(tmp_path / "memory/slurm/job", memory_limit_in_bytes="1000", memory_usage_in_bytes="900", memory_stat=statistics)
    write_group(tmp_path / "memory", memory_limit_in_bytes=str(2**63 - 4096), memory_usage_in_bytes="5000", memory_stat="cache 0")
    own = "12:cpu,cpuacct:/slurm/job\n4:memory:/slurm/job\n1:name=systemd:/x\n0::/\n"
    assert _left_in_groups(own, tmp_path) == [500, 2**63 - 4096 - 5000]


@pytest.mark.parametrize("own", ["0::/elsewhere\n", "4:memory:/\n", "1:name=systemd:/\n", ""])
def test_groups_without_limits_limit_nothing(own: str, tmp_path: Path) -> None:
    assert _left_in_groups(own, tmp_path) == []


def test_this_machine_has_some_memory_left() -> None:
    assert available_memory_bytes() > 0
