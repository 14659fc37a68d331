"""Training curves: loss and validation quality, epoch by epoch, with their numbers below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whit.reporting.layout import significant
from whit.reporting.page_axes import Axis, axis_of
from whit.reporting.page_columns import four
from whit.reporting.page_figures import Figure, plotly_text
from whit.reporting.page_history import MOST_EPOCHS, Curve, curve_of
from whit.reporting.page_marks import Mark, joined_titles
from whit.reporting.page_markup import Markup, caption, joined, scrolling, tag

if TYPE_CHECKING:
    from whit.comparison import Comparison

_FEW_EPOCHS = 15
_Drawn = list[tuple[Mark, Curve]]


@dataclass(frozen=True)
class _Quantity:
    """What one chart of curves shows.

    Attributes:
        name: key of the stored history.
        title: above the chart.
        log: whether to take logarithms where the values span more than a decade.
    """

    name: str
    title: str
    log: bool

    def text(self, value: float | None) -> str:
        """Return a value as text, a dash for none."""
        if value is None:
            return "–"
        return significant(value) if self.log else four(value)


def training_curves(comparison: Comparison, marks: Sequence[Mark]) -> tuple[Markup, list[Figure]]:
    """Return the places of the two charts with buttons and tables, and the figures to draw."""
    quantities = (
        _Quantity("loss", "Training loss", log=True),
        _Quantity("valid", f"Validation {comparison.control.metric} while training", log=False),
    )
    places, figures, shown = [], [], set()
    for quantity in quantities:
        drawn = [(m, c) for m in marks if (c := curve_of(m.row, quantity.name)) is not None]
        shown |= {mark.number for mark, _ in drawn}
        if drawn:
            figures.append(_figure(quantity, drawn))
            places.append(_place(quantity, drawn))
    without = [mark for mark in marks if mark.number not in shown]
    missing = [tag("p", "No curves of ", m.title, f": {_why(m)}.", class_="small") for m in without]
    buttons = _buttons([mark for mark in marks if mark.number in shown]) if places else None
    return joined(buttons, tag("div", *places, class_="charts"), *missing), figures


def _why(mark: Mark) -> str:
    if mark.row.failed:
        return mark.row.failed.rstrip(".")
    return "its runs are of a version that did not store them; repeat them with --again"


def _buttons(marks: Sequence[Mark]) -> Markup:
    """Return one button a technique, which hides and shows its lines in both charts."""
    buttons = [
        tag("button", mark.title, type="button", aria_pressed="true", data_curve=str(mark.number))
        for mark in marks
    ]
    return tag(
        "div", *buttons, class_="curve-keys", role="group", aria_label="Lines that are shown"
    )


def _place(quantity: _Quantity, drawn: _Drawn) -> Markup:
    names = joined_titles([mark for mark, _ in drawn])
    said = f"{quantity.title} over epochs: {names}. The numbers are in the table below."
    plot = tag("div", class_="plot", id=f"chart-{quantity.name}", role="img", aria_label=said)
    numbers = tag(
        "details",
        tag("summary", "Numbers of this chart"),
        scrolling(_numbers(quantity, drawn), quantity.title),
    )
    return tag("figure", tag("figcaption", tag("h3", quantity.title)), plot, numbers)


def _numbers(quantity: _Quantity, drawn: _Drawn) -> Markup:
    epochs = sorted({epoch for _, curve in drawn for epoch in curve.epochs})
    columns = [dict(zip(curve.epochs, curve.mean, strict=True)) for _, curve in drawn]
    heads = [tag("th", mark.title, scope="col") for mark, _ in drawn]
    rows = [
        tag(
            "tr",
            tag("th", str(epoch), scope="row"),
            *(tag("td", quantity.text(c.get(epoch)), class_="number") for c in columns),
        )
        for epoch in epochs
    ]
    several = any(len(curve.seeds) > 1 for _, curve in drawn)
    said = f"{quantity.title}, {'mean over seeds' if several else 'one seed'}{_fits(drawn)}"
    return tag(
        "table",
        caption(said),
        tag("thead", tag("tr", tag("th", "epoch", scope="col"), *heads)),
        tag("tbody", *rows),
    )


def _fits(drawn: _Drawn) -> str:
    """Return where second and later trainings begin, and whether epochs were left out."""
    starts = [
        f"{mark.number} trains anew from epoch {', '.join(map(str, curve.starts))}"
        for mark, curve in drawn
        if curve.starts
    ]
    said = f". {'; '.join(starts)}" if starts else ""
    thinned = any(len(curve.epochs) < curve.epochs[-1] for _, curve in drawn)
    return f"{said}. At most {MOST_EPOCHS} epochs of each are shown." if thinned else f"{said}."


def _figure(quantity: _Quantity, drawn: _Drawn) -> Figure:
    values = [v for _, curve in drawn for v in _late(curve, everything=quantity.log)]
    x = axis_of([epoch for _, curve in drawn for epoch in curve.epochs], whole=True)
    y = axis_of(values, wide=quantity.log)
    scale = " (loss on a log scale)" if y.log else _cut(drawn, y)
    data = [
        *(trace for mark, curve in drawn for trace in _seed_traces(mark, curve)),
        *(_mean_trace(quantity, mark, curve) for mark, curve in drawn),
    ]
    return {
        "id": f"chart-{quantity.name}",
        "data": data,
        "layout": {
            "xaxis": x.layout() | {"title": {"text": f"epoch{scale}"}},
            "yaxis": y.layout(),
            "margin": {"l": 56, "r": 44, "t": 10, "b": 50},
        },
        "labels": [label for mark, curve in drawn if (label := _end(mark, curve, x, y))],
        "obstacles": [],
        "at_end": True,
    }


def _late(curve: Curve, everything: bool) -> list[float]:
    """Return the values that a chart must hold: all, or those of the second half of each training.

    How techniques differ in the end would be too small to see beside their first epochs.
    """
    begins = [1, *curve.starts]
    ends = [*(start - 1 for start in curve.starts), curve.epochs[-1]]
    halves = [(first + last) / 2 for first, last in zip(begins, ends, strict=True)]
    kept = []
    for seed in curve.seeds:
        for epoch, value in zip(curve.epochs, seed, strict=True):
            number = sum(epoch >= first for first in begins) - 1
            if value is not None and (everything or epoch >= halves[number]):
                kept.append(value)
    return kept


def _cut(drawn: _Drawn, y: Axis) -> str:
    values = [v for _, curve in drawn for seed in curve.seeds for v in seed if v is not None]
    return " (lower, early values: in the numbers)" if min(values) < y.low else ""


def _seed_traces(mark: Mark, curve: Curve) -> list[dict[str, Any]]:
    """Return a faint line for every seed; none for a single one, which is the mean."""
    if len(curve.seeds) == 1:
        return []
    return [_trace(mark, curve, seed, width=1.0, opacity=0.3) for seed in curve.seeds]


def _mean_trace(quantity: _Quantity, mark: Mark, curve: Curve) -> dict[str, Any]:
    title = plotly_text(f"{mark.number} {mark.name}")
    epochs, values = _with_gaps(curve, curve.mean)
    said = [
        f"<b>{title}</b><br>epoch {e}: {quantity.text(v)}"
        for e, v in zip(epochs, values, strict=True)
    ]
    trace = _trace(mark, curve, curve.mean, width=2.2, opacity=1.0)
    return trace | {"hoverinfo": "text", "hovertext": said}


def _trace(
    mark: Mark, curve: Curve, values: Sequence[float | None], *, width: float, opacity: float
) -> dict[str, Any]:
    epochs, shown = _with_gaps(curve, values)
    mean = opacity == 1.0
    # Of few epochs each is marked by the technique's shape; a single one would be no line at all.
    marked = mean and len(curve.epochs) <= _FEW_EPOCHS
    return {
        "type": "scatter",
        "mode": "lines+markers" if marked or len(curve.epochs) == 1 else "lines",
        "name": str(mark.number),
        "meta": "mean" if mean else "seed",
        "x": epochs,
        "y": shown,
        "opacity": opacity,
        "connectgaps": False,
        "marker": {"symbol": mark.symbol, "size": 6, "color": mark.color},
        "line": {"width": width, "color": mark.color, "dash": mark.dash if mean else "solid"},
        "hoverinfo": "skip",
    }


def _with_gaps(
    curve: Curve, values: Sequence[float | None]
) -> tuple[list[int], list[float | None]]:
    """Return epochs and values with a hole where another training begins."""
    epochs: list[int] = []
    shown: list[float | None] = []
    for epoch, value in zip(curve.epochs, values, strict=True):
        if any((epochs[-1] if epochs else epoch) < start <= epoch for start in curve.starts):
            epochs.append(epoch)
            shown.append(None)
        epochs.append(epoch)
        shown.append(value)
    return epochs, shown


def _end(mark: Mark, curve: Curve, x: Axis, y: Axis) -> dict[str, Any] | None:
    """Return the number that stands at the end of a line."""
    known = [(e, v) for e, v in zip(curve.epochs, curve.mean, strict=True) if v is not None]
    if not known:
        return None
    epoch, value = known[-1]
    place = {"x": x.place(epoch), "y": y.place(value)}
    return place | {"number": str(mark.number), "lines": None, "color": mark.color}
