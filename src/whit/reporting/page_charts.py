"""Quality against cost: one chart for each kind of cost, with the front and its numbers below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from whit.reporting.page_columns import (
    COSTS,
    Column,
    known,
    quality_columns,
    why_unknown,
    with_spread,
)
from whit.reporting.page_figures import Chart, Figure, figure_of
from whit.reporting.page_marks import Mark, joined_titles
from whit.reporting.page_markup import Markup, caption, scrolling, tag

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

_TITLES = {
    "stored_bytes": "size of the file",
    "macs": "multiply-accumulates",
    "latency_ms": "latency",
    "energy_nj": "modelled energy",
}


def cost_charts(comparison: Comparison, marks: Sequence[Mark]) -> tuple[Markup, list[Figure]]:
    """Return the charts' places with their tables, and the figures to draw in them.

    Quality is that of the validation split in all of them.
    """
    quality = quality_columns(comparison)[0]
    places, figures = [], []
    for cost in COSTS:
        chart = _chart(comparison, quality, cost, marks)
        missing = [mark for mark in marks if mark not in chart.marks]
        if chart.marks:
            figures.append(figure_of(chart))
        places.append(_place(chart, missing))
    return tag("div", *places, class_="charts"), figures


def _chart(comparison: Comparison, quality: Column, cost: Column, marks: Sequence[Mark]) -> Chart:
    shown = [m for m in marks if _both(m.row, quality, cost)]
    front = comparison.pareto(quality.name, cost.name)
    on_front = tuple(mark for row in front for mark in shown if mark.row is row)
    return Chart(comparison, quality, cost, tuple(shown), on_front)


def _both(row: Row, quality: Column, cost: Column) -> bool:
    return known(row, quality.name) is not None and known(row, cost.name) is not None


def _place(chart: Chart, missing: Sequence[Mark]) -> Markup:
    cost, quality = chart.cost, chart.quality
    title = f"{quality.head[:1].upper()}{quality.head[1:]} and {_TITLES[cost.name]}"
    lines = []
    if chart.marks:
        count = "1 technique" if len(chart.marks) == 1 else f"{len(chart.marks)} techniques"
        said = (
            f"{title}: {count}. On the front, cheapest first: "
            f"{joined_titles(chart.front)}. The numbers are in the table below."
        )
        lines.append(
            tag("div", class_="plot", id=f"chart-{cost.name}", role="img", aria_label=said)
        )
        lines.append(_numbers(chart, missing, title))
    for mark in missing:
        reason = why_unknown(mark.row, cost.name).rstrip(".")
        lines.append(tag("p", "Not drawn: ", mark.title, f": {reason}.", class_="small missing"))
    return tag("figure", tag("figcaption", tag("h3", title)), *lines)


def _numbers(chart: Chart, missing: Sequence[Mark], title: str) -> Markup:
    heads = (
        "technique",
        chart.quality.head,
        chart.cost.unit,
        "on the front",
    )
    rows = []
    for mark in (*chart.marks, *missing):
        on_front = "yes" if mark in chart.front else "–" if mark in missing else "no"
        rows.append(
            tag(
                "tr",
                tag("th", mark.title, scope="row"),
                tag("td", with_spread(mark.row, chart.quality), class_="number"),
                tag("td", with_spread(mark.row, chart.cost), class_="number"),
                tag("td", on_front),
            )
        )
    table = tag(
        "table",
        caption(title, class_="unseen"),
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *rows),
    )
    return tag("details", tag("summary", "Numbers of this chart"), scrolling(table, title))


def how_to_read_charts() -> Markup:
    """Return what the parts of a chart mean."""
    return tag(
        "p",
        "Up and to the left is better. The line of steps is the front: the best validation quality "
        "to be had for at most that cost. Filled shapes are on it; for a hollow one there is "
        "another technique that is at least as good and costs no more. Bars are one sample "
        "deviation over seeds. The square is the control, the ring the one "
        "to take.",
    )
