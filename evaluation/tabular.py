"""Records of JSONL files and of Parquet tables alike: fields by name, null counting as none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.records import Record, find_files, read_records
from nemo_ext.common.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def read_rows(path: Path, fields: Sequence[str]) -> Iterator[Record]:
    """The records of a file or of all of a folder, in the order of their names; of a table, only `fields` are read.

    Rows of a table count from 1. Raises DataError naming the file, and the line of what is no record.
    """
    for file in find_files(path, SUFFIXES):
        name = file.relative_to(path) if file != path else Path(file.name)
        records = _read_table(file, fields) if file.suffix == ".parquet" else read_records(file)
        for record in records:
            known = {field: value for field, value in record.fields.items() if value is not None}
            yield Record(record.place, str(name.parent / record.name), known)


def _read_table(file: Path, fields: Sequence[str]) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        batches = table.iter_batches(columns=[name for name in fields if name in table.schema_arrow.names])
        rows: Iterator[dict[str, Any]] = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield Record(f"{file}:{number}", f"{file.name}:{number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is no Parquet table or is damaged ({error}). Fetch it again.") from None
