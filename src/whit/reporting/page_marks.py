"""What stands for a technique all over the page: a number, a shape and a colour.

The number and the shape say which technique it is without the colour. Colours are names of CSS
variables, which page.css gives a light and a dark value; shapes are those that plotly.js draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whit.reporting.layout import name_pieces, shown_name
from whit.reporting.page_markup import Markup, joined, tag

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

COLORS = 6
CONTROL_SYMBOL = "square"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
# Shapes of plotly.js with their outline in a box from 0 to 16.
SYMBOLS = {
    "circle": "M8 2a6 6 0 1 0 .01 0z",
    "diamond": "M8 1l6 7-6 7-6-7z",
    "triangle-up": "M8 2l7 12H1z",
    "cross": "M5.8 1h4.4v4.8H15v4.4h-4.8V15H5.8v-4.8H1V5.8h4.8z",
    "triangle-down": "M8 14L1 2h14z",
    "x": "M4 1l4 4 4-4 3 3-4 4 4 4-3 3-4-4-4 4-3-3 4-4-4-4z",
    "star": "M8 1l2.1 4.8 5.2.5-3.9 3.5 1.1 5.1L8 12.2l-4.5 2.7 1.1-5.1L.7 6.3l5.2-.5z",
    "hexagon": "M8 1l6 3.5v7L8 15l-6-3.5v-7z",
    "bowtie": "M1 2l7 4.5L15 2v12L8 9.5 1 14z",
    "hourglass": "M2 1h12L9.5 8l4.5 7H2l4.5-7z",
    "pentagon": "M8 1l7 5.3-2.7 8.2H3.7L1 6.3z",
}
_SQUARE = "M2 2h12v12H2z"


@dataclass(frozen=True)
class Mark:
    """How one row is drawn.

    Attributes:
        number: in the order of the comparison, from 1; the control is 1.
        row: that it stands for.
        symbol: name of the shape.
        color: CSS expression of its colour.
        dash: of its lines.
    """

    number: int
    row: Row
    symbol: str
    color: str
    dash: str

    @property
    def name(self) -> str:
        """The technique's name without empty brackets."""
        return shown_name(self.row.label)

    @property
    def key(self) -> Markup:
        """The shape and the number, for tables and lists."""
        return joined(self.swatch, tag("span", str(self.number), class_="number"))

    @property
    def swatch(self) -> Markup:
        """The shape alone, hidden from screen readers."""
        path = tag("path", d=SYMBOLS.get(self.symbol, _SQUARE), fill=self.color)
        return tag("svg", path, class_="swatch", viewBox="0 0 16 16", aria_hidden="true")

    @property
    def title(self) -> Markup:
        """Shape, number and name."""
        pieces = [joined(piece, tag("wbr")) for piece in name_pieces(self.name)]
        return joined(self.key, " ", tag("code", *pieces))


def marks_of(comparison: Comparison) -> list[Mark]:
    """Return a mark for every row; shape and colour together are unique up to 66 techniques."""
    first = Mark(1, comparison.control, CONTROL_SYMBOL, "var(--control)", DASHES[0])
    symbols = list(SYMBOLS)
    others = [
        Mark(
            number=n + 2,
            row=row,
            symbol=symbols[n % len(symbols)],
            color=f"var(--c{n % COLORS + 1})",
            dash=DASHES[n // COLORS % len(DASHES)],
        )
        for n, row in enumerate(comparison.rows[1:])
    ]
    return [first, *others]


def mark_of(row: Row, marks: Sequence[Mark]) -> Mark:
    """Return the mark of a row of the comparison."""
    return next(mark for mark in marks if mark.row is row)


def joined_titles(marks: Sequence[Mark]) -> str:
    """Return numbers and names in one line of text."""
    return ", ".join(f"{mark.number} {mark.name}" for mark in marks)
