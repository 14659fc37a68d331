"""Axes of the charts: range, ticks and their texts, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whit.reporting.layout import short, significant

DECADE = 10.0
_MARGIN = 0.07
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low: lower end, in the units of `place`.
        high: upper end.
        log: whether places are decimal logarithms of the values.
        ticks: values that are marked.
        texts: what stands there.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]
    texts: tuple[str, ...]

    def place(self, value: float) -> float:
        """Return where a value lies; below everything when it has no logarithm."""
        if not self.log:
            return value
        return math.log10(value) if value > 0 else self.low

    def has(self, value: float) -> bool:
        """Say whether a value lies on the axis."""
        return (value > 0 or not self.log) and self.low <= self.place(value) <= self.high

    def layout(self) -> dict[str, Any]:
        """Return the axis for plotly.js, without zoom: a finger on the chart scrolls the page."""
        return {
            "type": "log" if self.log else "linear",
            "range": [self.low, self.high],
            "tickmode": "array",
            "tickvals": self.ticks,
            "ticktext": self.texts,
            "fixedrange": True,
            "zeroline": False,
            "showline": True,
            "gridcolor": "var(--grid)",
            "linecolor": "var(--rule)",
            "ticks": "",
        }


def axis_of(values: Sequence[float], *, wide: bool = False, whole: bool = False) -> Axis:
    """Return an axis that holds all values, with some room.

    Args:
        values: finite; at least one.
        wide: whether to take logarithms where the values span more than a decade.
        whole: whether only whole numbers are marked.
    """
    low, high = min(values), max(values)
    if wide and low > 0 and high / low > DECADE:
        return _log_axis(low, high)
    room = (high - low) * _MARGIN or abs(high) * 0.05 or 0.5
    low, high = low - room, high + room
    step = _step(high - low, whole)
    first = math.ceil(low / step - 1e-9)
    ticks = [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(low, high, False, tuple(ticks), tuple(_linear_text(tick, step) for tick in ticks))


def _log_axis(low: float, high: float) -> Axis:
    room = math.log10(high / low) * _MARGIN
    start, end = math.log10(low) - room, math.log10(high) + room
    decades = range(math.floor(start), math.ceil(end) + 1)
    ticks: list[float] = []
    for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        ticks = [s * 10.0**d for d in decades for s in steps]
        ticks = [tick for tick in ticks if start <= math.log10(tick) <= end]
        if len(ticks) <= _MOST_TICKS:
            break
    every = math.ceil(len(ticks) / _MOST_TICKS)
    ticks = ticks[::every]
    return Axis(start, end, True, tuple(ticks), tuple(map(_short, ticks)))


def _step(span: float, whole: bool) -> float:
    size = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
    step = next(size * s for s in _STEPS if span / (size * s) < _MOST_TICKS)
    return max(1.0, float(math.ceil(step))) if whole else step


def _linear_text(tick: float, step: float) -> str:
    if abs(tick) >= 1000:
        return short(tick) if tick > 0 else f"{tick:,.0f}"
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**places - round(step * 10**places)) > 1e-6:
        places += 1
    return f"{tick:.{places}f}".replace("-0.", "-0.") if tick else f"{0:.{places}f}"


def _short(tick: float) -> str:
    return short(tick) if tick >= 1000 else significant(tick, 1)
