"""A budget: limits on the columns of the scorecard, written as one line.

`Budget("stored_bytes <= 60 kB, latency_ms < 2 ms, valid_accuracy >= 0.95")`. An unknown value
breaks its limit: a model that cannot be packed does not fit into 60 kB by being unmeasured.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from whit.core.options import nearest
from whit.errors import BudgetError

_LIMIT = re.compile(
    r"\s*(?P<column>[A-Za-z_]\w*)\s*(?P<sign><=|>=|<|>)\s*"
    r"(?P<value>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
    r"\s*(?P<unit>[A-Za-zµ%]*)\s*"
)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_UNITS: dict[str, dict[str, float]] = {
    "bytes": {
        **{"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
        **{"KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3},
    },
    "ms": {"": 1.0, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "seconds": {"": 1.0, "ms": 1e-3, "s": 1.0},
    "nj": {"": 1.0, "nJ": 1.0, "uJ": 1e3, "µJ": 1e3, "mJ": 1e6},
}


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        column: name of the scorecard's column.
        sign: "<=", ">=", "<" or ">".
        value: in the column's own unit (bytes, ms, seconds, nJ, or a plain number).
    """

    column: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {repr(self.value).removesuffix('.0')}"

    def holds(self, value: float) -> bool:
        """Say whether a value keeps the limit; NaN never does."""
        return _SIGNS[self.sign](value, self.value)


@dataclass(frozen=True)
class Budget:
    """Limits on the columns of a scorecard; empty means no limits.

    Args:
        text: limits separated by commas; units B, kB, MB, KiB, MiB; k, M, G; us, ms, s; nJ, uJ,
        mJ; %.

    Raises:
        BudgetError: a limit that cannot be read, an unknown column or unit, or a column of the test
            split (choices are made on validation only).
    """

    text: str = field(default="", compare=False)
    limits: tuple[Limit, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Parse the text."""
        if not isinstance(self.text, str):
            raise BudgetError(f"A budget is written as text, {_EXAMPLE}; {self.text!r} was given.")
        parts = self.text.split(",") if self.text.strip() else []
        object.__setattr__(self, "limits", tuple(_parse(part) for part in parts))

    def __str__(self) -> str:
        return ", ".join(str(limit) for limit in self.limits)

    def __bool__(self) -> bool:
        return bool(self.limits)

    def violations(self, row: Mapping[str, Any]) -> list[str]:
        """Return one sentence for each limit that a scorecard breaks, or cannot show to keep.

        Args:
            row: columns by name (`Scorecard.as_dict()`); `reasons` may say why a column is unknown.
        """
        broken = []
        for limit in self.limits:
            value = row.get(limit.column)
            if not isinstance(value, (int, float)) or math.isnan(value):
                reason = (row.get("reasons") or {}).get(limit.column, "it was not measured")
                broken.append(
                    f"{limit} cannot be shown to hold: {limit.column} is unknown ({reason})"
                )
            elif not limit.holds(value):
                broken.append(f"{limit} is broken: {limit.column} is {value:.6g}")
        return broken


_EXAMPLE = "like 'stored_bytes <= 60 kB, valid_accuracy >= 0.95'"


def _parse(text: str) -> Limit:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise BudgetError(
            f"The budget limit {text.strip()[:80]!r} cannot be read. Write a column, one of <= "
            f">= < >, a number and a unit, {_EXAMPLE}; limits are separated by commas."
        )
    column, unit = match["column"], match["unit"]
    _check_column(column)
    units = _units_of(column)
    if unit not in units:
        known = ", ".join(name for name in units if name) or "none"
        raise BudgetError(
            f"The budget limit {text.strip()!r} has the unit '{unit}', and {column} knows: {known}."
        )
    value = float(match["value"]) * units[unit]
    if not math.isfinite(value):
        raise BudgetError(f"The budget limit {text.strip()!r} is not a finite number.")
    return Limit(column, match["sign"], value)


def _check_column(column: str) -> None:
    # Imported here: the scorecard brings the packer along, and a budget is also read without it.
    from whit.measure.columns import NUMERIC_COLUMNS

    if column.startswith("test_"):
        raise BudgetError(
            f"The budget limits '{column}', and the test split may not be used to choose. "
            f"Limit 'valid_{column.removeprefix('test_')}' instead."
        )
    if column not in NUMERIC_COLUMNS and not re.fullmatch(r"valid_\w+", column):
        raise BudgetError(
            f"The budget names the column '{column}', which the scorecard does not have. "
            f"{nearest(column, [*NUMERIC_COLUMNS, 'valid_accuracy'])}"
        )


def _units_of(column: str) -> dict[str, float]:
    if column == "flops_per_byte":
        return _COUNTS
    if column.startswith("valid_") or column.endswith("_agreement"):
        return {"": 1.0, "%": 0.01}
    return _UNITS.get(column.rpartition("_")[2], _COUNTS)
