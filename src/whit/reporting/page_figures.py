"""The figures of quality against cost, as plotly.js takes them; colours are left to the theme."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from whit.reporting.layout import name_lines, name_pieces
from whit.reporting.page_axes import Axis, axis_of
from whit.reporting.page_columns import Column, spread_of, with_spread
from whit.reporting.page_marks import Mark

if TYPE_CHECKING:
    from whit.comparison import Comparison

Figure = dict[str, Any]
_LABEL_WIDTH = 22
# "folder/my_file.py:" before the name of a technique: the table has it, a label has no room.
_REFERENCE = re.compile(r"[\w./-]+:(?=[^\W\d])")
_LABEL_LINES = 3
_POINT = 12
_RING = 24


@dataclass(frozen=True)
class Chart:
    """What one chart shows.

    Attributes:
        comparison: gives front, budget and recommendation.
        quality: validation column, upwards.
        cost: column to the right.
        marks: rows whose quality and cost are known.
        front: those that no other beats, cheapest first.
    """

    comparison: Comparison
    quality: Column
    cost: Column
    marks: tuple[Mark, ...]
    front: tuple[Mark, ...]

    @property
    def x(self) -> Axis:
        """The axis of the cost."""
        return axis_of(self._ends(self.cost), wide=True)

    @property
    def y(self) -> Axis:
        """The axis of the quality."""
        return axis_of(self._ends(self.quality))

    def _ends(self, column: Column) -> list[float]:
        ends = []
        for mark in self.marks:
            value, spread = mark.row.means[column.name], spread_of(mark.row, column.name)
            # On a cost's axis a spread down to 0 or below would have no place.
            low = value - spread if value - spread > 0 or column is self.quality else value
            ends += [value, low, value + spread]
        return ends


def figure_of(chart: Chart) -> Figure:
    """Return the points, the front, the labels and what they should not lie on."""
    x, y = chart.x, chart.y
    scale = ", log scale" if x.log else ""
    x_axis = x.layout() | {"title": {"text": f"{chart.cost.unit}, {chart.cost.source}{scale}"}}
    chosen = chart.comparison.recommend()[0]
    return {
        "id": f"chart-{chart.cost.name}",
        "data": [
            _front_trace(chart, x),
            *(_ring_trace(chart, mark) for mark in chart.marks if mark.row is chosen),
            *(_point_trace(chart, mark, x) for mark in chart.marks),
        ],
        "layout": {
            "xaxis": x_axis,
            "yaxis": y.layout(),
            "margin": {"l": 56, "r": 14, "t": 10, "b": 50},
            "shapes": _limits(chart, x, y),
        },
        "labels": [_label(chart, mark, x) for mark in chart.marks],
        "obstacles": [*_error_bars(chart, x), *_steps(chart, x), *_limit_labels(chart, x, y)],
    }


def _value(mark: Mark, column: Column) -> float:
    return float(mark.row.means[column.name])


def _front_trace(chart: Chart, x: Axis) -> dict[str, Any]:
    """Return the best quality that can be had for at most so much, as a line of steps."""
    end = 10**x.high if x.log else x.high
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [*(_value(mark, chart.cost) for mark in chart.front), end],
        "y": [
            *(_value(mark, chart.quality) for mark in chart.front),
            *(_value(mark, chart.quality) for mark in chart.front[-1:]),
        ],
        "line": {"shape": "hv", "color": "var(--front)", "width": 2},
        "hoverinfo": "skip",
    }


def _ring_trace(chart: Chart, mark: Mark) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "recommended",
        "x": [_value(mark, chart.cost)],
        "y": [_value(mark, chart.quality)],
        "marker": {
            "symbol": "circle-open",
            "size": _RING,
            "color": "var(--good)",
            "line": {"width": 2, "color": "var(--good)"},
        },
        "hoverinfo": "skip",
    }


def _point_trace(chart: Chart, mark: Mark, x: Axis) -> dict[str, Any]:
    hollow = mark not in chart.front
    return {
        "type": "scatter",
        "mode": "markers",
        "name": str(mark.number),
        "x": [_value(mark, chart.cost)],
        "y": [_value(mark, chart.quality)],
        "marker": {
            "symbol": f"{mark.symbol}-open" if hollow else mark.symbol,
            "size": _POINT - 2 if hollow else _POINT,
            "color": mark.color,
            "opacity": 1,
            "line": {"width": 2 if hollow else 1, "color": mark.color if hollow else "var(--page)"},
        },
        "error_y": _error(mark, chart.quality),
        "error_x": _error(mark, chart.cost, x),
        "hoverinfo": "text",
        "hovertext": _hover(chart, mark),
    }


def _error(mark: Mark, column: Column, axis: Axis | None = None) -> dict[str, Any]:
    spread = spread_of(mark.row, column.name)
    value = _value(mark, column)
    down = spread
    if axis is not None and axis.log and value - spread <= 0:
        down = value - 10**axis.low  # to the edge: there is no 0 on this axis
    return {
        "type": "data",
        "visible": spread > 0,
        "symmetric": False,
        "array": [spread],
        "arrayminus": [down],
        "color": mark.color,
        "thickness": 1.5,
        "width": 3,
    }


def _hover(chart: Chart, mark: Mark) -> str:
    lines = [
        f"<b>{plotly_text(f'{mark.number} {mark.name}')}</b>",
        f"{plotly_text(chart.quality.head)} {with_spread(mark.row, chart.quality)}",
        f"{plotly_text(chart.cost.unit)} {with_spread(mark.row, chart.cost)}",
    ]
    return "<br>".join(lines)


def plotly_text(text: str) -> str:
    """Return a text in which plotly.js finds no markup of its own."""
    return escape(text, quote=False)


def _label(chart: Chart, mark: Mark, x: Axis) -> dict[str, Any]:
    text = f"{mark.number} {_REFERENCE.sub('', mark.name)}"
    lines = name_lines(text, _LABEL_WIDTH)
    fits = len(lines) <= _LABEL_LINES and max(map(len, name_pieces(text))) <= _LABEL_WIDTH
    return {
        "x": x.place(_value(mark, chart.cost)),
        "y": _value(mark, chart.quality),
        "number": str(mark.number),
        # A name that takes too much room is left to the table: the number stands for it.
        "lines": [line.strip() for line in lines] if fits else None,
        "color": mark.color,
    }


def _error_bars(chart: Chart, x: Axis) -> list[list[float]]:
    """Return the bars as lines from one corner to the other, where no label should lie."""
    bars = []
    for mark in chart.marks:
        value, cost = _value(mark, chart.quality), _value(mark, chart.cost)
        up, right = spread_of(mark.row, chart.quality.name), spread_of(mark.row, chart.cost.name)
        place = x.place(cost)
        bars.append([place, value - up, place, value + up])
        bars.append([x.place(cost - right), value, x.place(cost + right), value])
    return bars


def _steps(chart: Chart, x: Axis) -> list[list[float]]:
    steps = []
    ends = [*(x.place(_value(mark, chart.cost)) for mark in chart.front[1:]), x.high]
    heights = [_value(mark, chart.quality) for mark in chart.front]
    for n, (mark, end) in enumerate(zip(chart.front, ends, strict=True)):
        steps.append([x.place(_value(mark, chart.cost)), heights[n], end, heights[n]])
        if n + 1 < len(heights):
            steps.append([end, heights[n], end, heights[n + 1]])
    return steps


def _limit_labels(chart: Chart, x: Axis, y: Axis) -> list[list[float]]:
    """Return about where the word at an upright line of the budget stands."""
    limits = [
        limit.value
        for limit in chart.comparison.budget.limits
        if limit.column == chart.cost.name and x.has(limit.value)
    ]
    wide, high = 0.12 * (x.high - x.low), 0.06 * (y.high - y.low)
    places = map(x.place, limits)
    return [[place, y.high - high, place + wide, y.high] for place in places]


def _limits(chart: Chart, x: Axis, y: Axis) -> list[dict[str, Any]]:
    """Return lines at the limits of the budget that lie within the chart."""
    lines = []
    for limit in chart.comparison.budget.limits:
        if limit.column == chart.cost.name and x.has(limit.value):
            ends = {"x0": limit.value, "x1": limit.value, "y0": 0, "y1": 1, "yref": "paper"}
            spot = {"textposition": "end", "textangle": 0, "xanchor": "left", "yanchor": "top"}
        elif limit.column == chart.quality.name and y.has(limit.value):
            ends = {"y0": limit.value, "y1": limit.value, "x0": 0, "x1": 1, "xref": "paper"}
            spot = {"textposition": "start", "yanchor": "bottom"}
        else:
            continue
        label = {"text": "budget", "font": {"size": 11}, **spot}
        line = {"color": "var(--bad)", "width": 1.5, "dash": "dash"}
        lines.append({"type": "line", **ends, "line": line, "label": label, "layer": "above"})
    return lines
