"""The report page: a comparison as one HTML file that needs nothing else, for whoever decides.

The file asks for nothing from anywhere, and its policy forbids it: the browser runs only the
scripts whose digests stand in the head, so that no text of a user can become one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from whit import __version__
from whit.atomic_files import write_atomically
from whit.errors import MissingExtra, WhitError
from whit.reporting.page_charts import cost_charts, how_to_read_charts
from whit.reporting.page_curves import training_curves
from whit.reporting.page_layers import layers_and_warnings
from whit.reporting.page_marks import Mark, marks_of
from whit.reporting.page_markup import Markup, data_script, joined, script, tag
from whit.reporting.page_notes import notes_of_techniques
from whit.reporting.page_origin import (
    budget_part,
    commands,
    provenance_table,
    reads_part,
    settings_table,
)
from whit.reporting.page_summary import how_to_read, verdict_header
from whit.reporting.page_table import results_table

if TYPE_CHECKING:
    from whit.comparison import Comparison

_TITLES = {
    "results": "Results",
    "charts": "Quality and cost",
    "curves": "Training",
    "layers": "Layers, before => after",
    "notes": "What the techniques found",
    "repeat": "Repeat it",
    "budget": "Budget",
    "origin": "Settings and origin",
}
_SCRIPTS = ("page_labels.js", "page_charts.js", "page.js")


def write_report(comparison: Comparison, path: Path) -> Path:
    """Write the report of a comparison as one HTML file, about 5 MB, and return its path.

    Args:
        comparison: its first row is the control.
        path: the file to make or replace; readers see the old one or the new one, whole.

    Raises:
        MissingExtra: plotly is not installed.
        WhitError: the file cannot be written.
    """
    content = report_html(comparison)
    try:
        write_atomically(path, lambda partial: partial.write_text(content, encoding="utf-8"))
    except OSError as error:
        raise WhitError(
            f"The report could not be written to '{path}' ({error.strerror}). Choose a file in a "
            "folder that exists and can be written, on a disk that has 5 MB left."
        ) from None
    return path


def report_html(comparison: Comparison) -> str:
    """Return the report of a comparison as HTML: verdict, table, charts, layers, commands.

    Args:
        comparison: its first row is the control.

    Raises:
        MissingExtra: plotly is not installed.
    """
    plotly, version = _plotly()
    marks = marks_of(comparison)
    charts, cost_figures = cost_charts(comparison, marks)
    curves, curve_figures = training_curves(comparison, marks)
    notes, note_figures = notes_of_techniques(marks)
    main = tag(
        "main",
        verdict_header(comparison, marks),
        how_to_read(comparison),
        _contents(without=() if notes else ("notes",)),
        _section("results", results_table(comparison, marks)),
        _section("charts", how_to_read_charts(), charts),
        _section("curves", curves),
        _section("layers", layers_and_warnings(marks)),
        _section("notes", notes) if notes else None,
        *_origin(comparison, marks),
        id="main",
        tabindex="-1",
    )
    figures = data_script("figures", [*cost_figures, *curve_figures, *note_figures])
    scripts = [plotly, *(_resource(name) for name in _SCRIPTS)]
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#results-part", class_="skip"),
        main,
        _footer(len(plotly.encode()), version),
        figures,
        *(script(content) for content in scripts),
    )
    head = _head(comparison, scripts)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _plotly() -> tuple[str, str]:
    """Return plotly.js and its version; plotly.py ships one bundle only."""
    try:
        from plotly.offline import get_plotlyjs, get_plotlyjs_version
    except ImportError:
        raise MissingExtra("train", "plotly") from None
    # A browser reads line ends as \n before it computes the digest.
    return get_plotlyjs().replace("\r\n", "\n"), get_plotlyjs_version()


def _resource(name: str) -> str:
    return files("whit.reporting").joinpath(name).read_text(encoding="utf-8")


def _head(comparison: Comparison, scripts: Sequence[str]) -> Markup:
    allowed = " ".join(f"'{_digest(content)}'" for content in scripts)
    # Styles are not code; plotly.js writes some into attributes.
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", f"whit: techniques compared on {comparison.task}"),
        tag("style", Markup(_resource("page.css"))),
    )


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _section(name: str, *parts: Markup | None) -> Markup:
    """Return one of the parts of `_TITLES`."""
    head = tag("h2", _TITLES[name], id=f"{name}-title")
    return tag("section", head, *parts, id=f"{name}-part", aria_labelledby=f"{name}-title")


def _contents(without: Sequence[str]) -> Markup:
    titles = [(name, title) for name, title in _TITLES.items() if name not in without]
    links = [tag("a", title, href=f"#{name}-part") for name, title in titles]
    return tag("nav", *links, aria_label="Parts of this page")


def _origin(comparison: Comparison, marks: Sequence[Mark]) -> tuple[Markup, Markup, Markup]:
    return (
        _section("repeat", commands(comparison, marks)),
        _section("budget", budget_part(comparison, marks)),
        _section(
            "origin",
            joined(settings_table(marks), provenance_table(comparison), reads_part(comparison)),
        ),
    )


def _footer(plotly_bytes: int, version: str) -> Markup:
    said = (
        f"Made by whit {__version__}. This file asks for nothing from the network: plotly.js "
        f"{version} ({plotly_bytes / 1e6:.1f} MB, MIT licence) is inside it."
    )
    return tag("footer", tag("p", said))
