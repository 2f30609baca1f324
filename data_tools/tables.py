"""Parquet tables as documents: one a row, spelled as the line of JSON that has the same fields. Only the columns in use are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_tools.inputs import InputFile
from nemo_ext.common.errors import DataError

ROWS_AT_ONCE = 256


def row_group_bytes(file: InputFile) -> list[int]:
    """Bytes on disk of every row group, in order."""
    metadata = _open(file).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [sum(group.column(column).total_compressed_size for column in range(group.num_columns)) for group in groups]


def rows_before(file: InputFile, group: int) -> int:
    """Rows of the row groups before one."""
    metadata = _open(file).metadata
    return sum(metadata.row_group(number).num_rows for number in range(group))


def table_rows(file: InputFile, group: int, columns: tuple[str, ...]) -> Iterator[bytes]:
    """Rows of a row group, as JSON objects with those of `columns` that the table has and that are not null."""
    import pyarrow

    table = _open(file)
    kept = [name for name in columns if name in table.schema_arrow.names]
    try:
        for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=kept or None):
            for row in batch.to_pylist():
                fields = {name: value for name, value in row.items() if value is not None}
                yield json.dumps(fields, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"Input {file.path} is damaged ({error}). Fetch it again.") from None


def _plain(value: Any) -> dict[str, str]:
    return {"value": str(value)}  # dates, decimals, bytes: none of them is text, and the reason given will say so


def _open(file: InputFile) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file.path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"Input {file.path} is not a Parquet table or is damaged ({error}). Fetch it again.") from None
