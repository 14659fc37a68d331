"""The page of `whit bench --report`: one HTML file with a plot a file, without any script.

The plots are drawn here as SVG in the colours of the report page, so that the page is small and
can be read, printed and mailed anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from whit import __version__
from whit.atomic_files import write_atomically
from whit.errors import WhitError
from whit.reporting.bench_table import (
    explanations,
    machine_lines,
    network_line,
    network_notes,
    ratio_words,
    times_text,
)
from whit.reporting.layout import significant
from whit.reporting.page_markup import Markup, caption, joined, scrolling, tag

if TYPE_CHECKING:
    from whit.benchmarking.bench import Bench, BenchRow, Candidate, Network

_COLOR = {"whit": "--c1", "float32": "--c2", "int8": "--c3"}
_KINDS = {"whit": "whit", "float32": "float32 peers", "int8": "int8 peers"}
_LINE, _TOP, _BOTTOM = 24, 8, 30
_LEFT, _RIGHT, _WIDTH = 230, 190, 900
_TICK_FACTORS = (1, 2, 5)
_MOST_TICKS = 8
_STYLE = """
svg.times { width: 100%; max-width: 900px; height: auto; display: block; font-size: 13px; }
svg.times text { fill: var(--text); }
svg.times .soft { fill: var(--soft); }
svg.times line { stroke: var(--grid); stroke-width: 1; }
svg.times .span { stroke-width: 3; stroke-linecap: round; }
.key span { margin-right: 1.4rem; white-space: nowrap; }
.key i { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; }
.key i { margin-right: 0.4em; }
h3 { margin: 1.4rem 0 0.3rem; }
"""


def write_bench_page(bench: Bench, path: Path) -> Path:
    """Write the result of a benchmark as one HTML file and return its path.

    Args:
        bench: the result.
        path: the file to make or replace.

    Raises:
        WhitError: the file cannot be written.
    """
    content = bench_html(bench)
    try:
        write_atomically(path, lambda partial: partial.write_text(content, encoding="utf-8"))
    except OSError as error:
        raise WhitError(
            f"The page could not be written to '{path}' ({error.strerror}). Choose a file in a "
            "folder that exists and can be written."
        ) from None
    return path


def bench_html(bench: Bench) -> str:
    """Return the result of a benchmark as HTML: a plot and a table for each file."""
    parts = [_network(bench, network) for network in bench.networks]
    main = tag(
        "main",
        tag("h1", _headline(bench)),
        _key(),
        *parts,
        tag("section", tag("h2", "How it was measured"), _measured(bench)),
        id="main",
        tabindex="-1",
    )
    said = f"Made by whit {__version__}. This file asks for nothing from the network."
    body = tag("body", main, tag("footer", tag("p", said)))
    return f"<!doctype html>\n{tag('html', _head(), body, lang='en')}\n"


def _head() -> Markup:
    style = files("whit.reporting").joinpath("page.css").read_text(encoding="utf-8") + _STYLE
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", "whit: packed networks and their peers"),
        tag("style", Markup(style)),
    )


def _headline(bench: Bench) -> str:
    if any(row.verdict == "disturbed" for row in bench.rows):
        return "The machine was disturbed while this was measured: no verdicts."
    judged = [row for row in bench.rows if row.verdict != "no peer"]
    ahead = sum(row.verdict == "faster" for row in judged)
    slower = sum(row.verdict == "slower" for row in judged)
    return (
        f"Faster than the fastest peer in {ahead} of {len(judged)} measurements, slower in "
        f"{slower}, on {bench.machine['cpu']}."
    )


def _key() -> Markup:
    items = [
        tag("span", tag("i", style=f"background: var({_COLOR[kind]})"), words)
        for kind, words in _KINDS.items()
    ]
    return tag("p", *items, "dot: median; line: from the minimum to the median", class_="key small")


def _network(bench: Bench, network: Network) -> Markup:
    rows = [row for row in bench.rows if row.file == network.file]
    plots = [joined(tag("h3", _title(row)), _plot(row, rows)) for row in rows]
    notes = [tag("p", note, class_="small") for note in network_notes(network)]
    return tag("section", tag("h2", network_line(network)), *notes, *plots, _table(network, rows))


def _title(row: BenchRow) -> str:
    threads = "1 thread" if row.threads == 1 else f"{row.threads} threads"
    return f"Batch {row.batch}, {threads}, {row.caches}: {row.verdict}"


def _plot(row: BenchRow, rows: Sequence[BenchRow]) -> Markup:
    """Draw the candidates of a row, the fastest on top, on the axis of its batch size."""
    alike = [c for other in rows if other.batch == row.batch for c in other.candidates]
    axis = _Axis([t for c in alike for t in (c.times.minimum_ms, c.times.median_ms)])
    ordered = sorted(row.candidates, key=lambda candidate: candidate.times.median_ms)
    height = _TOP + _LINE * len(ordered) + _BOTTOM
    bottom = height - _BOTTOM
    grid = [
        joined(
            tag("line", x1=_at(axis.place(t)), x2=_at(axis.place(t)), y1="0", y2=_at(bottom)),
            tag(
                "text",
                f"{significant(t, 1)} ms",
                x=_at(axis.place(t)),
                y=_at(bottom + 18),
                text_anchor="middle",
                class_="soft",
            ),
        )
        for t in axis.ticks()
    ]
    lines = [_line(row, c, axis, _TOP + _LINE * (n + 0.5)) for n, c in enumerate(ordered)]
    label = f"{_title(row)}. " + "; ".join(f"{c.name} {times_text(c)} ms" for c in ordered)
    box = f"0 0 {_WIDTH} {height}"
    return tag("svg", *grid, *lines, viewBox=box, role="img", aria_label=label, class_="times")


def _line(row: BenchRow, candidate: Candidate, axis: _Axis, y: float) -> Markup:
    times, color = candidate.times, f"var({_COLOR[candidate.kind]})"
    low, middle = axis.place(times.minimum_ms), axis.place(times.median_ms)
    bold = "700" if candidate.kind == "whit" else None
    said = f"{significant(times.median_ms, 3)} ms"
    if candidate.kind != "whit":
        said += f", whit {ratio_words(row, candidate).partition(' ')[0]}"
    return joined(
        tag("text", candidate.name, x="0", y=_at(y + 4), font_weight=bold),
        tag(
            "line",
            x1=_at(low),
            x2=_at(middle),
            y1=_at(y),
            y2=_at(y),
            class_="span",
            style=f"stroke: {color}",
        ),
        tag("circle", cx=_at(middle), cy=_at(y), r="5", style=f"fill: {color}"),
        tag("text", said, x=_at(_WIDTH - _RIGHT + 14), y=_at(y + 4), font_weight=bold),
    )


class _Axis:
    """A logarithmic axis of milliseconds."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low, self.high = math.log10(min(values)), math.log10(max(values))
        margin = max(0.05, 0.03 * (self.high - self.low))
        self.low, self.high = self.low - margin, self.high + margin

    def place(self, value: float) -> float:
        """Return where a value stands on the drawing."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        """Return round values inside of the axis."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        for factors in (_TICK_FACTORS, (1,)):
            found = [factor * 10.0**decade for decade in decades for factor in factors]
            inside = [value for value in found if self.low <= math.log10(value) <= self.high]
            if len(inside) <= _MOST_TICKS:
                break
        return inside


def _at(place: float) -> str:
    return f"{place:.1f}"


def _table(network: Network, rows: Sequence[BenchRow]) -> Markup:
    heads = ("batch", "threads", "caches", "candidate", "median (minimum), ms", "whit is", "bytes")
    body = [
        tag(
            "tr",
            tag("th", str(row.batch), scope="row"),
            tag("td", str(row.threads)),
            tag("td", row.caches),
            tag("td", candidate.name),
            tag("td", times_text(candidate), class_="number"),
            tag("td", "" if candidate is row.whit else ratio_words(row, candidate)),
            tag("td", f"{candidate.stored_bytes:,}", class_="number"),
        )
        for row in rows
        for candidate in row.candidates
    ]
    table = tag(
        "table",
        caption(f"All times of {network.file}"),
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *body),
    )
    return tag(
        "details", tag("summary", "All numbers"), scrolling(table, f"Times of {network.file}")
    )


def _measured(bench: Bench) -> Markup:
    lines = [*explanations(bench), *machine_lines(bench)]
    command = tag("p", "Command: ", tag("code", bench.command)) if bench.command else None
    return joined(*(tag("p", line) for line in lines), command)
