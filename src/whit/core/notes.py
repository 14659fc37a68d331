"""What a procedure wants to show beside the scorecard: tables, lines and small pictures.

run.note("situations", Table(("name", "share"), [("4 or 9", 0.1)], "Found on held-out data"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.core.options import require

Cell = str | int | float | bool | None
MOST_PICTURES = 32
LARGEST_PICTURE = 64


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers.

    Args:
        columns: names, one or more.
        rows: as many cells each; numbers are finite.
        caption: one sentence.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; check them.

        Raises:
            SpecError: a row has another number of cells, or a cell is no plain value.
        """
        for row in self.rows:
            require(
                len(row) == len(self.columns),
                f"A row of a table has {len(row)} cells, and it has {len(self.columns)} columns.",
            )
        cells = [[_plain(cell) for cell in row] for row in self.rows]
        return {
            "kind": "table",
            "columns": list(self.columns),
            "rows": cells,
            "caption": self.caption,
        }


@dataclass(frozen=True)
class Lines:
    """Values over a common axis.

    Args:
        x: name and values of the axis: numbers, or texts such as the paths of layers.
        series: name -> as many numbers; None leaves a gap.
        caption: one sentence.
    """

    x: tuple[str, Sequence[float | str]]
    series: Mapping[str, Sequence[float | None]]
    caption: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; check them.

        Raises:
            SpecError: a series is longer or shorter than the axis, or holds no plain value.
        """
        name, places = self.x
        for label, values in self.series.items():
            require(
                len(values) == len(places),
                f"The series '{label}' has {len(values)} values, and the axis has {len(places)}.",
            )
        return {
            "kind": "lines",
            "axis": name,
            "x": [_plain(place) for place in places],
            "series": {label: [_plain(v) for v in values] for label, values in self.series.items()},
            "caption": self.caption,
        }


@dataclass(frozen=True)
class Pictures:
    """Small pictures with a text each.

    Args:
        items: (uint8 [height, width] or [height, width, 3], text); 32 at most, none larger than
            64 x 64.
        caption: one sentence.
    """

    items: Sequence[tuple[NDArray[np.uint8], str]]
    caption: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; check them.

        Raises:
            SpecError: too many or too large pictures, or another shape or type.
        """
        require(
            len(self.items) <= MOST_PICTURES,
            f"{len(self.items)} pictures were given for a note; at most {MOST_PICTURES} are kept.",
        )
        return {
            "kind": "pictures",
            "items": [_picture(array, text) for array, text in self.items],
            "caption": self.caption,
        }


Note = Table | Lines | Pictures


def _picture(array: NDArray[np.uint8], text: str) -> dict[str, Any]:
    shape = array.shape
    known = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    require(
        array.dtype == np.uint8 and known and max(shape[:2]) <= LARGEST_PICTURE,
        f"A picture of a note has the shape {list(shape)} and the type {array.dtype}; expected "
        f"uint8 [height, width] or [height, width, 3], at most {LARGEST_PICTURE} a side.",
    )
    return {"shape": list(shape), "pixels": array.tobytes().hex(), "text": text}


def _plain(cell: object) -> Cell:
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, float):
        require(isfinite(cell), f"A note holds the number {cell}, which JSON cannot carry.")
    require(
        cell is None or isinstance(cell, str | int | float | bool),
        f"A note holds a {type(cell).__name__}; expected texts and numbers.",
    )
    return cell  # type: ignore[return-value]
