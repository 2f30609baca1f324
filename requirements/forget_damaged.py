"""Makes pip install again what an interrupted installation left half unpacked: `forget_damaged.py SITE_PACKAGES`.

pip takes a package as installed as soon as its metadata folder is there. Here every file of every package is compared, by size,
with the package's own list; where one is missing or short, the metadata folder is removed. Standard library only.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path


def is_whole(metadata_folder: Path) -> bool:
    """Whether all files that the package's RECORD lists are there with the size it gives."""
    record = metadata_folder / "RECORD"
    if not record.is_file():
        return False
    with record.open(encoding="utf-8", newline="") as lines:
        for name, _, size in csv.reader(lines):
            path = metadata_folder.parent / name
            if path.suffix == ".pyc":  # may be absent or made anew at any time
                continue
            if not path.is_file() or (size and path.stat().st_size != int(size)):
                return False
    return True


def main(site_packages: Path) -> None:
    """Remove and name the metadata folders of damaged packages."""
    for leftover in site_packages.glob("~*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for folder in sorted(site_packages.glob("*.dist-info")):
        if not is_whole(folder):
            print(f"  {folder.name.removesuffix('.dist-info')} is incomplete and will be installed again")
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
