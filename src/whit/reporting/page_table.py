"""The sortable table of the report page, with its notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from whit.reporting.layout import ratio_text, routes_text, short
from whit.reporting.page_columns import (
    COSTS,
    HIGHER,
    LOWER,
    TRAINING,
    Column,
    chosen_word,
    known,
    quality_columns,
    read_times,
    spread_text,
    why_unknown,
)
from whit.reporting.page_history import warnings_of
from whit.reporting.page_marks import Mark
from whit.reporting.page_markup import Content, Markup, caption, joined, scrolling, tag

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

_WORDS = {"better": "▲ better", "worse": "▼ worse", "within noise": "within noise"}
STALE = (
    "stale: code, data, versions or threads have changed since these runs; repeat the command to "
    "get numbers of today"
)
_ARROWS = {HIGHER: "↑", LOWER: "↓"}


@dataclass
class _Notes:
    """The notes under the table, each once."""

    texts: list[str] = field(default_factory=list)

    def link(self, text: str, shown: str = "") -> Markup:
        """Return a link to the note, adding the note when it is new."""
        if text not in self.texts:
            self.texts.append(text)
        number = self.texts.index(text) + 1
        sign = tag("sup", str(number)) if shown else tag("sup", f"note {number}")
        return tag("a", shown or None, sign, href=f"#note-{number}", class_="note")

    def listed(self) -> Markup | None:
        """Return the list of notes; None when there are none."""
        items = [tag("li", text, id=f"note-{n}") for n, text in enumerate(self.texts, 1)]
        return tag("ol", *items, class_="notes") if items else None


def results_table(comparison: Comparison, marks: Sequence[Mark]) -> Markup:
    """Return the table with one row per technique, sortable by each column, and its notes."""
    notes = _Notes()
    chosen = comparison.recommend()[0]
    valid, test = quality_columns(comparison)
    body = []
    for mark in marks:
        name = _name(comparison, mark, chosen, notes)
        if mark.row.failed:
            body.append(_failed(mark, name, 4 + len(COSTS)))
            continue
        cells = [
            name,
            _quality(mark.row, valid, notes),
            _quality(mark.row, test, notes),
            _verdict(mark.row, comparison.control),
            *(_cost(mark.row, column, notes) for column in (*COSTS, TRAINING)),
        ]
        class_ = "recommended" if mark.row is chosen else None
        body.append(tag("tr", *cells, class_=class_, data_mark=str(mark.number)))
    several = "mean ± sample deviation over seeds" if len(chosen.runs) > 1 else "one seed"
    said = f"Quality ({several}) and costs; small below a cost: the ratio to the control."
    table = tag(
        "table",
        caption(said),
        tag("thead", tag("tr", *_heads(valid, test, read_times(comparison)))),
        tag("tbody", *body),
        id="results",
        class_="sortable",
    )
    status = tag("p", "", id="sorted", class_="unseen", role="status")
    return joined(scrolling(table, "Results, one technique a row"), status, notes.listed())


def _heads(valid: Column, test: Column, times: str) -> list[Markup]:
    return [
        _head("technique", "number", "", "left"),
        _head(valid.head, "choose by this", HIGHER),
        _head(test.head, f"read {times}", HIGHER),
        _head("test verdict", "95 % interval", HIGHER, "left"),
        *(_head(c.head, _unit(c), LOWER) for c in (*COSTS, TRAINING)),
    ]


def _unit(column: Column) -> str:
    unit = "per inference" if column.name == "macs" else column.unit.removesuffix(" per inference")
    return f"{unit}, {column.source}"


def _head(words: str, below: str, better: str, class_: str = "") -> Markup:
    """Return a heading with a button; the first click puts the best on top."""
    arrow = None
    if better:
        arrow = tag("span", f"\u00a0{_ARROWS[better]}", class_="better", title=better)
    # The best comes first: quality falling, costs and numbers rising.
    first = "descending" if better == HIGHER else "ascending"
    button = tag("button", words, arrow, type="button", data_first=first)
    return tag(
        "th",
        button,
        tag("span", below, class_="unit"),
        scope="col",
        aria_sort="none",
        class_=class_ or None,
    )


def _name(comparison: Comparison, mark: Mark, chosen: Row, notes: _Notes) -> Markup:
    row = mark.row
    flags: list[Content] = []
    if row is chosen:
        flags.append(tag("span", chosen_word(comparison), class_="flag good"))
    if row is comparison.control:
        flags.append(tag("span", "control", class_="flag"))
    flags += [notes.link(text, text.partition(":")[0]) for text in _remarks(comparison, row)]
    return tag(
        "th",
        tag("span", mark.title, class_="title"),
        tag("span", *flags, class_="flags") if flags else None,
        scope="row",
        data_value=str(mark.number),
    )


def _remarks(comparison: Comparison, row: Row) -> list[str]:
    """Return what a reader must know of a row; what stands before the colon is shown beside it."""
    remarks = list(row.notes)
    if getattr(row, "stale", False):
        remarks.append(STALE)
    if not row.failed:
        broken = comparison.budget.violations({**row.means, "reasons": row.reasons})
        remarks += [f"{_kept(sentence)}: {sentence}" for sentence in broken]
    warned = warnings_of(row)
    if warned:
        count = "1 warning" if len(warned) == 1 else f"{len(warned)} warnings"
        remarks.append(f"{count}: of '{row.label}', see its layers below")
    return remarks


def _kept(sentence: str) -> str:
    return "budget unknown" if "cannot be shown" in sentence else "over budget"


def _failed(mark: Mark, name: Markup, columns: int) -> Markup:
    reason = tag("td", "not possible: ", mark.row.failed, colspan=str(columns), class_="prose")
    return tag("tr", name, reason, class_="failed", data_mark=str(mark.number))


def _cell(value: float | None, *children: Content, class_: str | None = None) -> Markup:
    finite = value is not None and isfinite(value)
    return tag("td", *children, data_value=repr(value) if finite else None, class_=class_)


def _quality(row: Row, column: Column, notes: _Notes) -> Markup:
    value = known(row, column.name)
    if value is None:
        return _unknown(row, column, notes)
    spread = None
    if column.name in row.spreads:
        spread = tag("span", f"± {spread_text(row, column)}", class_="small")
    return _cell(value, column.written(value), spread)


def _unknown(row: Row, column: Column, notes: _Notes) -> Markup:
    reason = f"unknown of '{row.label}': {why_unknown(row, column.name)}"
    return _cell(None, notes.link(reason, "unknown"), class_="unknown")


def _verdict(row: Row, control: Row) -> Markup:
    if row.verdict is None:
        return _cell(0.0 if row is control else None, "–", class_="left")
    word = row.verdict.word
    interval = row.verdict.interval_text(row.metric == "accuracy").strip("()")
    return _cell(
        row.verdict.difference,
        tag("span", _WORDS.get(word, word), class_=f"verdict {word.replace(' ', '-')}"),
        tag("span", interval, class_="small"),
        class_="left",
    )


def _cost(row: Row, column: Column, notes: _Notes) -> Markup:
    value = known(row, column.name)
    if value is None:
        return _unknown(row, column, notes)
    ratio = None
    if column.name in row.relative:
        ratio = tag("span", ratio_text(row.relative[column.name]), class_="small")
    below = _widths(row) if column.name == "macs" else []
    in_torch = known(row, "torch_latency_ms") if column.name == "latency_ms" else None
    if in_torch is not None:
        below = [tag("span", f"torch {column.written(in_torch)}", class_="small")]
    return _cell(value, column.written(value), ratio, *below)


def _widths(row: Row) -> list[Content]:
    """Return the MACs by width, and those whose weight is not 0 where that says more."""
    widths = row.macs_by_width or {}
    # A single width needs no count of its own.
    single = len(widths) == 1
    lines = [width if single else f"{short(count)} {width}" for width, count in widths.items()]
    nonzero = row.nonzero_macs
    if nonzero is not None and nonzero < 0.95 * sum(widths.values()):
        lines.append(f"{short(nonzero)} non-zero")
    lines += routes_text(row.best.columns.get("route_shares"))
    return [tag("span", line, class_="small") for line in lines]
