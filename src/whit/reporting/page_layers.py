"""What became of each layer, technique by technique, and the warnings of the trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whit.reporting.layout import ratio_text
from whit.reporting.page_columns import why_unknown
from whit.reporting.page_history import warnings_of
from whit.reporting.page_marks import Mark
from whit.reporting.page_markup import Markup, caption, joined, scrolling, tag

_HEADS = (
    "layer",
    "format",
    "bits per weight",
    "weights",
    "before => after, bytes",
    "",
    "Huffman",
    "why",
)


def layers_and_warnings(marks: Sequence[Mark]) -> Markup:
    """Return one part to open for each technique: layers of its best seed's file, warnings."""
    plain = _layers_of(marks[0])
    return joined(*(_technique(mark, _totals(plain)[0]) for mark in marks))


def _layers_of(mark: Mark) -> list[dict[str, Any]]:
    return [] if mark.row.failed else mark.row.best.columns.get("layers") or []


def _technique(mark: Mark, plain: int) -> Markup:
    row = mark.row
    warned = warnings_of(row)
    layers = _layers_of(mark)
    summary = [mark.title, tag("span", _said(mark, layers, plain, len(warned)), class_="said")]
    parts = []
    if warned:
        parts.append(tag("ul", *(tag("li", text) for text in warned), class_="warnings"))
    elif row.runs and all(run.row.get("history") for run in row.runs):
        parts.append(tag("p", "No warnings while training.", class_="small"))
    if layers:
        seed = row.best.planned.seed
        said = f"Weights in the file of seed {seed}, before (as float32) and after"
        table = tag("table", caption(said), _head(), _body(layers))
        parts.append(scrolling(table, f"Layers of {mark.number} {mark.name}"))
    else:
        parts.append(tag("p", f"No layers: {why_unknown(row, 'layers').rstrip('.')}."))
    return tag("details", tag("summary", *summary), *parts, class_="technique")


def _said(mark: Mark, layers: Sequence[Mapping[str, Any]], plain: int, warned: int) -> str:
    count = "1 warning" if warned == 1 else f"{warned} warnings"
    end = f" · {count}" if warned else ""
    if mark.row.failed:
        return f"not possible{end}"
    if not layers:
        return f"no packed file{end}"
    before, after = _totals(layers)
    # A technique may begin with another model than the control's, such as a narrow student.
    other = f", instead of the control's {plain:,}" if plain and before != plain else ""
    return f"weights {before:,} => {after:,} bytes{other}{end}"


def _totals(layers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    return sum(la["before_bytes"] for la in layers), sum(la["after_bytes"] for la in layers)


def _head() -> Markup:
    cells = [tag("th", head, scope="col") if head else tag("td") for head in _HEADS]
    return tag("thead", tag("tr", *cells))


def _body(layers: Sequence[Mapping[str, Any]]) -> Markup:
    before, after = _totals(layers)
    total = tag(
        "tr",
        tag("th", "all layers", scope="row"),
        *(tag("td"), tag("td")),
        _number(f"{sum(layer['weights'] for layer in layers):,}"),
        _number(f"{before:,} => {after:,}"),
        _number(_ratio(before, after)),
        *(tag("td"), tag("td")),
        class_="total",
    )
    return tag("tbody", *(_layer(layer) for layer in layers), total)


def _layer(layer: Mapping[str, Any]) -> Markup:
    before, after, huffman = (layer[k] for k in ("before_bytes", "after_bytes", "huffman_bytes"))
    name = layer["module"] or "model"
    # "conv1: few values" names the layer once more before the reason.
    reason = str(layer["reason"])
    return tag(
        "tr",
        tag("th", tag("code", str(name)), f" {layer['kind']}", scope="row"),
        tag("td", str(layer["format"])),
        _number(f"{layer['bits']:.3g}"),
        _number(f"{layer['weights']:,}"),
        _number(f"{before:,} => {after:,}"),
        _number(_ratio(before, after)),
        _number("–" if huffman is None else f"{huffman:,}"),
        tag("td", reason.partition(": ")[2] or reason, class_="prose"),
    )


def _ratio(before: int, after: int) -> str:
    return ratio_text(after / before) if before else "–"


def _number(text: str) -> Markup:
    return tag("td", text, class_="number")
