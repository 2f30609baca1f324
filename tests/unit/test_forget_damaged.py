"""The repair of an interrupted installation finds what pip would take for installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "requirements" / "forget_damaged.py"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A whole package of two files, as pip leaves it; gives the folder of packages."""
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "__init__.py").write_text("GROWS = True\n")
    (tmp_path / "seed-1.0.dist-info").mkdir()
    (tmp_path / "seed-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: seed\nVersion: 1.0\n")
    record = ["seed/__init__.py,sha256=x,13", "seed/__pycache__/__init__.cpython-311.pyc,,", "seed-1.0.dist-info/METADATA,,"]
    (tmp_path / "seed-1.0.dist-info" / "RECORD").write_text("\n".join([*record, "seed-1.0.dist-info/RECORD,,", ""]))
    return tmp_path


def run(folder: Path) -> str:
    return subprocess.run([sys.executable, str(PROGRAM), str(folder)], capture_output=True, text=True, check=True).stdout


def test_whole_package_is_kept_though_it_is_not_compiled(package: Path):
    assert run(package) == ""
    assert (package / "seed-1.0.dist-info" / "METADATA").is_file()


@pytest.mark.parametrize("damage", ["missing file", "short file", "no list of files"])
def test_damaged_package_is_named_and_forgotten(package: Path, damage: str):
    if damage == "missing file":
        (package / "seed" / "__init__.py").unlink()
    elif damage == "short file":
        (package / "seed" / "__init__.py").write_text("GRO")
    else:
        (package / "seed-1.0.dist-info" / "RECORD").unlink()
    assert "seed-1.0 is incomplete" in run(package)
    assert not (package / "seed-1.0.dist-info").exists()


def test_what_pip_put_aside_is_removed(package: Path):
    (package / "~eed").mkdir()
    run(package)
    assert not (package / "~eed").exists()
