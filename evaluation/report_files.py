"""The folders that `sibol compare` and `sibol report` write: complete or not there, and replaced only where they are our own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.report_tables import Table, comma_separated, latex, markdown
from nemo_ext.common.errors import OutputExistsError
from nemo_ext.common.files import atomic_folder, read_json, refuse_existing


def refuse_foreign(out_dir: Path, overwrite: bool, name: str, schema: str) -> None:
    """Raise OutputExistsError when `out_dir` is taken, or holds anything but a folder whose file `name` has `schema`."""
    refuse_existing(out_dir, overwrite)
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return
    known = read_json(out_dir / name) if (out_dir / name).is_file() else None
    if not isinstance(known, dict) or not str(known.get("schema", "")).startswith(schema.partition("/")[0]):
        raise OutputExistsError(f"{out_dir} holds no {name} of an earlier call and is not replaced. Choose another --out.")


def table_files(tables: Sequence[Table]) -> dict[str, str]:
    """CSV and LaTeX of every table, by file name."""
    files: dict[str, str] = {}
    for table in tables:
        files |= {f"tables/{table.name}.csv": comma_separated(table), f"tables/{table.name}.tex": latex(table)}
    return files


def write_folder(out_dir: Path, files: Mapping[str, str | bytes], overwrite: bool) -> None:
    """Write `files`, by their names below `out_dir`, as one atomic folder."""
    with atomic_folder(out_dir, overwrite) as folder:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def as_json(value: Any) -> str:
    """Indented JSON; NaN and infinity are refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_comparison(comparison: dict[str, Any], tables: Sequence[Table], out_dir: Path, overwrite: bool) -> None:
    """comparison.json, comparison.md and the tables as CSV and LaTeX."""
    refuse_foreign(out_dir, overwrite, "comparison.json", comparison["schema"])
    notes = [f"- {line}" for line in [*comparison["warnings"], *comparison["unknown"]]]
    text = "\n".join(["# Comparison", "", *map(markdown, tables), *(["## Warnings", "", *notes] if notes else [])]) + "\n"
    write_folder(out_dir, {"comparison.md": text, **table_files(tables), "comparison.json": as_json(comparison)}, overwrite)
