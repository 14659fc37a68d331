"""Numbers and names as a reader takes them in, and how they fit into columns."""

from __future__ import annotations

import math
import re
import textwrap

# After these a technique's name may go on in the next line; nowhere else.
_PIECE = re.compile(r" \+ |\(| @ |, | (?=\[\d+\])")


def significant(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits and thousands separators, no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def ratio_text(ratio: float) -> str:
    """Return a ratio as a reader takes it in: "1/24" for small ones, "x1.02" for large ones."""
    if 0 < ratio < 0.995:
        return f"1/{_factor(1 / ratio)}"
    return f"x{_factor(ratio)}"


def _factor(value: float) -> str:
    if value >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1.995 else f"{value:.2f}"


def short(count: float) -> str:
    """Return a count with k, M, G or T and three digits."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def routes_text(route_shares: list[list[float]] | None) -> list[str]:
    """Return a line for each route of a file: percent of the inputs in its situations."""
    return [
        f"route {' / '.join(f'{100 * share:.0f}' for share in shares)} %"
        for shares in route_shares or ()
    ]


def macs_text(macs_by_width: dict[str, int]) -> str:
    """Return MACs by width in short form, one width a line, such as "38k w1a1"."""
    return "\n".join(f"{short(count)} {width}" for width, count in macs_by_width.items()) or "0"


def shown_name(label: str) -> str:
    """Return a spec without brackets that hold nothing; it can still be given as a spec."""
    return label.replace("()", "")


def name_pieces(label: str) -> list[str]:
    """Return the parts of a technique's name that are never broken."""
    pieces, start = [], 0
    for match in _PIECE.finditer(label):
        pieces.append(label[start : match.end()])
        start = match.end()
    return [*pieces, label[start:]]


def name_lines(label: str, width: int) -> list[str]:
    """Break a technique's name into lines; those after the first are indented.

    Args:
        label: name, with its footnotes.
        width: of the column; only a piece that is longer is broken inside.
    """
    lines, line = [], ""
    for piece in name_pieces(label):
        if line.strip() and len((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = "  " if len(piece.rstrip()) + 2 <= width else ""
        line += piece
        while len(line.rstrip()) > width:
            lines.append(line[:width])
            line = "  " + line[width:]
    return [*lines, line.rstrip()]


def wrapped(text: str, width: int) -> str:
    """Break a text at its spaces."""
    return "\n".join(
        part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]
    )
