"""A table once, written in four ways: Markdown, CSV, LaTeX and for the terminal; the page of the report has a fifth.

A cell is text, a number, nothing known (None), or an `Ends`, the two ends of an interval. CSV has numbers in full precision;
the others round them as `evaluation.table` does.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.table import number

NOT_KNOWN = "-"
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#])")


@dataclass(frozen=True)
class Ends:
    """Both ends of an interval; None where it is not known."""

    low: float | None
    high: float | None


Cell = str | int | float | Ends | None


@dataclass(frozen=True)
class Table:
    """`name` is that of its files. `columns` are headings; rows have a cell for each. `notes` are sentences below it."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()  # columns that a terminal has no room for

    def texts(self) -> list[list[str]]:
        """The cells as they are shown."""
        return [[shown(cell) for cell in row] for row in self.rows]

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, which stand on the right."""
        return any(isinstance(row[column], (int, float, Ends)) for row in self.rows)


def shown(cell: Cell) -> str:
    """A cell as readers see it."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Ends):
        return NOT_KNOWN if cell.low is None else f"[{number(cell.low)}, {number(cell.high)}]"
    return number(cell)


def markdown(table: Table, level: int = 2) -> str:
    """A GitHub table under a heading of that level."""
    rows = [[markdown_text(text) for text in row] for row in table.texts()]
    rule = [" ---: |" if table.numeric(column) else " --- |" for column in range(len(table.columns))]
    lines = [f"{'#' * level} {markdown_text(table.title)}", "", _line([markdown_text(name) for name in table.columns]), "|" + "".join(rule)]
    lines += [_line(row) for row in rows]
    lines += [f"\n{markdown_text(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def comma_separated(table: Table) -> str:
    """CSV with full precision; an interval is two columns, nothing known an empty cell."""
    with_ends = [any(isinstance(row[column], Ends) for row in table.rows) for column in range(len(table.columns))]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    headings: list[str] = []
    for name, two in zip(table.columns, with_ends, strict=True):
        headings += [f"{name} low", f"{name} high"] if two else [name]
    writer.writerow(headings)
    for row in table.rows:
        cells: list[Any] = []
        for cell, two in zip(row, with_ends, strict=True):
            if two:
                cells += [cell.low, cell.high] if isinstance(cell, Ends) else [None, None]
            else:
                cells.append(cell)
        writer.writerow(cells)
    return output.getvalue()


def latex(table: Table) -> str:
    """A table environment for the booktabs package."""
    letters = "".join("r" if table.numeric(column) else "l" for column in range(len(table.columns)))
    rows = [" & ".join(map(latex_text, row)) + r" \\" for row in table.texts()]
    notes = [rf"\par\footnotesize {latex_text(note)}" for note in table.notes]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}}}", rf"\label{{tab:{table.name}}}"]
    body = [rf"\begin{{tabular}}{{{letters}}}", r"\toprule", " & ".join(map(latex_text, table.columns)) + r" \\", r"\midrule", *rows]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""])


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in " ".join(text.split()))


def rich_table(table: Table) -> Any:
    """For the terminal."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    found = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    kept = [column for column, name in enumerate(table.columns) if name not in table.details]
    for column in kept:
        numeric = table.numeric(column)
        found.add_column(
            Text(table.columns[column]),
            justify="right" if numeric else "left",
            no_wrap=numeric and not any(isinstance(row[column], str) for row in table.rows),
        )
    for row in table.texts():
        found.add_row(*(Text(row[column]) for column in kept))
    return found
