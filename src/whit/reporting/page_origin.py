"""How to repeat every row: commands, settings, where the numbers come from, and the budget."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whit.reporting.page_columns import read_times
from whit.reporting.page_marks import Mark
from whit.reporting.page_markup import Content, Markup, caption, joined, scrolling, tag
from whit.reporting.page_summary import copy_button

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

# Everything that says where a number comes from; the time is shown as a span.
_NESTED = "versions"
_TIME = "time"


def commands(comparison: Comparison, marks: Sequence[Mark]) -> Markup:
    """Return the command line that repeats each row, with a button that copies it."""
    items = []
    for mark in marks:
        name = f"command-{mark.number}"
        text = command_of(mark.row, comparison)
        if text is None:
            block = tag(
                "p", "No run of it was finished: there is nothing to repeat.", class_="small"
            )
        else:
            block = tag(
                "div",
                tag("pre", tag("code", text, id=name), tabindex="0"),
                copy_button(name, f"the command of {mark.number} {mark.name}"),
                class_="command",
            )
        items.append(tag("li", tag("p", mark.title), block))
    return tag("ul", *items, class_="commands")


def command_of(row: Row, comparison: Comparison) -> str | None:
    """Return the command line that carries out a row again; None when it has no runs.

    Args:
        row: its own command is taken where it has one; otherwise all settings are written out.
        comparison: names the task and the folder.
    """
    own = getattr(row, "command", "")
    if own:
        return str(own)
    if not row.runs:
        return None
    settings = row.runs[0].planned.settings.as_dict()
    written = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    spec = f"{row.spec.partition(' @ ')[0]} @ {written}"
    seeds = [run.planned.seed for run in row.runs]
    words = ["whit", "run", comparison.task, spec, "--out", comparison.out]
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return shlex.join([*words, "--seed", str(seeds[0]), "--seeds", str(len(seeds))])
    return " && ".join(shlex.join([*words, "--seed", str(seed)]) for seed in seeds)


def settings_table(marks: Sequence[Mark]) -> Markup:
    """Return the settings of each technique that ran; those unlike the control's stand out."""
    ran = [mark for mark in marks if mark.row.runs]
    control = ran[0].row.runs[0].planned.settings.as_dict()
    heads = [tag("th", head, scope="col") for head in ("technique", *control, "seeds")]
    rows = []
    for mark in ran:
        own = mark.row.runs[0].planned.settings.as_dict()
        cells = [
            tag("td", str(own.get(name)), class_=None if own.get(name) == value else "differs")
            for name, value in control.items()
        ]
        seeds = ", ".join(str(run.planned.seed) for run in mark.row.runs)
        rows.append(tag("tr", tag("th", mark.title, scope="row"), *cells, tag("td", seeds)))
    table = tag(
        "table",
        caption("Settings; bold where they differ from the control's"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *rows),
    )
    return scrolling(table, "Settings")


def provenance_table(comparison: Comparison) -> Markup:
    """Return versions, machine and commit of all runs; several values where runs differ."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for row in comparison.rows:
        for run in row.runs:
            for name, text in _flat(run.row.get("provenance") or {}).items():
                found.setdefault(name, []).append((text, row))
    rows = [
        tag("tr", tag("th", n, scope="row"), tag("td", _values(n, v))) for n, v in found.items()
    ]
    if not rows:
        return tag("p", "The runs hold no provenance.")
    heads = (tag("th", "what", scope="col"), tag("th", "of these runs", scope="col"))
    table = tag(
        "table",
        caption("Where the numbers come from"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *rows),
    )
    return scrolling(table, "Where the numbers come from")


def _flat(provenance: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in provenance.items():
        if name == _NESTED and isinstance(value, dict):
            flat |= {str(package): str(version) for package, version in value.items()}
        else:
            flat[name] = _said(name, value)
    return flat


def _said(name: str, value: object) -> str:
    if name == "dirty" and value is not None:
        return "yes, changed since the commit" if value else "no"
    return "unknown" if value is None else str(value)


def _values(name: str, found: Sequence[tuple[str, Row]]) -> Content:
    texts = sorted({text for text, _ in found})
    if name == _TIME:
        return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
    if len(texts) == 1:
        return texts[0]
    lines = []
    for text in texts:
        labels = dict.fromkeys(row.label for other, row in found if other == text)
        lines.append(tag("li", f"{text}: ", ", ".join(labels)))
    return tag("ul", *lines, class_="values")


def budget_part(comparison: Comparison, marks: Sequence[Mark]) -> Markup:
    """Return the budget, and which rows keep or break it."""
    if not comparison.budget:
        return tag("p", "No budget was given, so no row can break one.")
    items = []
    for mark in marks:
        if mark.row.failed:
            continue
        broken = comparison.budget.violations({**mark.row.means, "reasons": mark.row.reasons})
        said = "; ".join(broken) if broken else "keeps it"
        items.append(tag("li", mark.title, f": {said}.", class_="broken" if broken else None))
    return joined(
        tag("p", "Limits: ", tag("code", str(comparison.budget)), "."),
        tag("ul", *items, class_="budget"),
    )


def reads_part(comparison: Comparison) -> Markup:
    """Return how often the test split was read, and where every line of the results is."""
    store = str(Path(comparison.out) / "results.jsonl")
    return tag(
        "p",
        f"The test split of {comparison.task} was read {read_times(comparison)} so far, by ",
        tag("code", store),
        ", which holds one line for every run.",
    )
