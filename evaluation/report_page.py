"""The report as one HTML page that needs nothing but itself: styles and figures are inside, and there is no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from evaluation.plot import COLOURS, DASHES, Figure
from evaluation.report_tables import shown

if TYPE_CHECKING:
    from evaluation.report import Section


def render_page(title: str, sections: Sequence[Section]) -> str:
    """HTML; everything that comes from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "data_uri": _data_uri, "anchor": _anchor}
    return environment.get_template("report.html.j2").render(title=title, sections=sections, stroke=_stroke)


def _data_uri(figure: Figure) -> str:
    """In an <img> an SVG can neither run scripts nor load anything, and its ids cannot clash with those of another."""
    return "data:image/svg+xml;base64," + base64.b64encode(figure.svg).decode("ascii")


def _stroke(number: int) -> dict[str, str]:
    """Colour and dashes of the line of run `number`."""
    return {"colour": COLOURS[number % len(COLOURS)], "dashes": " ".join(f"{part * 1.5:g}" for part in DASHES[number % len(DASHES)])}


def _anchor(title: str) -> str:
    return "".join(character if character.isascii() and character.isalnum() else "-" for character in title.lower()).strip("-")
