"""What the procedures noted: tables, lines and small pictures, technique by technique."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from whit.reporting.layout import significant
from whit.reporting.page_figures import Figure, plotly_text
from whit.reporting.page_marks import Mark
from whit.reporting.page_markup import Markup, caption, joined, scrolling, tag

_SCALE = 3  # screen pixels for each of a small picture
_DASHES = ("solid", "dash", "dot", "dashdot")


def notes_of_techniques(marks: Sequence[Mark]) -> tuple[Markup, list[Figure]]:
    """Return one part for each technique with notes (of its best seed), and the figures to draw.

    Without any note the markup is empty.
    """
    parts, figures = [], []
    for mark in marks:
        notes = _notes_of(mark)
        if not notes:
            continue
        shown = []
        for number, (name, note) in enumerate(notes.items()):
            place = f"chart-note-{mark.number}-{number}"
            if note["kind"] == "lines":
                figures.append(_figure(place, note))
            content = _SHOWN[note["kind"]](place, name, note)
            shown += [tag("h4", name), content]
        seed = mark.row.best.planned.seed
        parts += [tag("h3", mark.title, f", seed {seed}"), *shown]
    return joined(*parts), figures


def _notes_of(mark: Mark) -> Mapping[str, Mapping[str, Any]]:
    return {} if mark.row.failed else mark.row.best.row.get("notes") or {}


def _table(place: str, name: str, note: Mapping[str, Any]) -> Markup:
    heads = [tag("th", str(column), scope="col") for column in note["columns"]]
    rows = [tag("tr", *(_cell(cell) for cell in row)) for row in note["rows"]]
    body = tag("tbody", *rows)
    table = tag("table", caption(note["caption"]), tag("thead", tag("tr", *heads)), body)
    return scrolling(table, name)


def _cell(value: object) -> Markup:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return tag("td", _text(value), class_="number" if numeric else None)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _lines(place: str, name: str, note: Mapping[str, Any]) -> Markup:
    said = f"{name}: {', '.join(note['series'])} over {note['axis']}. The numbers are below."
    columns = (note["axis"], *note["series"])
    rows = list(zip(note["x"], *note["series"].values(), strict=True))
    numbers = tag(
        "details",
        tag("summary", "Numbers of this chart"),
        _table(place, name, {"columns": columns, "rows": rows, "caption": note["caption"]}),
    )
    plot = tag("div", class_="plot", id=place, role="img", aria_label=said)
    return tag("figure", tag("figcaption", note["caption"]), plot, numbers)


def _figure(place: str, note: Mapping[str, Any]) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plotly_text(label),
            "x": [plotly_text(x) if isinstance(x, str) else x for x in note["x"]],
            "y": values,
            "line": {"dash": _DASHES[number % len(_DASHES)]},
        }
        for number, (label, values) in enumerate(note["series"].items())
    ]
    return {
        "id": place,
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": plotly_text(note["axis"])}, "automargin": True},
            "yaxis": {"automargin": True},
            "showlegend": len(data) > 1,
            "legend": {"orientation": "h", "y": 1.12},
            "margin": {"l": 56, "r": 14, "t": 30, "b": 50},
        },
    }


def _pictures(place: str, name: str, note: Mapping[str, Any]) -> Markup:
    shown = [_picture(item) for item in note["items"]]
    return joined(tag("p", note["caption"], class_="small"), tag("div", *shown, class_="pictures"))


def _picture(item: Mapping[str, Any]) -> Markup:
    height, width, *_ = item["shape"]
    source = f"data:image/png;base64,{base64.b64encode(_png(item)).decode('ascii')}"
    image = tag(
        "img",
        src=source,
        alt=item["text"],
        width=str(_SCALE * width),
        height=str(_SCALE * height),
    )
    return tag("figure", image, tag("figcaption", item["text"]))


def _png(item: Mapping[str, Any]) -> bytes:
    """Return a stored picture as PNG, 8 bits a channel, without filters."""
    height, width, *channels = item["shape"]
    pixels = bytes.fromhex(item["pixels"])
    line = width * (3 if channels else 1)
    rows = b"".join(b"\0" + pixels[n * line : (n + 1) * line] for n in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


_SHOWN = {"table": _table, "lines": _lines, "pictures": _pictures}
