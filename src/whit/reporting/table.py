"""The table of a comparison, for somebody who has to decide, in at most 110 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from whit.measure.verdict import RULE

if TYPE_CHECKING:
    from whit.comparison import Comparison, Row

WIDTH = 112
_COLORS = {"better": "green", "worse": "red"}


def comparison_text(comparison: Comparison) -> str:
    """Return the table and its footnotes as plain text."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(comparison_view(comparison))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def comparison_view(comparison: Comparison, control: bool = True) -> RenderableType:
    """Return the table, its footnotes, the rule and the recommendation, to be printed by rich.

    Args:
        comparison: rows with the control first.
        control: whether there is one; without, ratios, verdicts and recommendation are left out.
    """
    notes: list[str] = []
    metric = comparison.rows[0].metric
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=None, collapse_padding=True)
    table.add_column("technique", min_width=18, overflow="fold")
    for head in (f"valid\n{metric}", f"test\n{metric}", "file\nbytes", "MACs", "energy\nnJ"):
        table.add_column(head, justify="right")
    table.add_column("latency\nms", justify="right")
    table.add_column("train\ns", justify="right")
    for row in comparison.rows:
        table.add_row(*_cells(row, notes))
    parts: list[RenderableType] = [_title(comparison), table]
    parts += [Text(f"[{number}] {note}", style="dim") for number, note in enumerate(notes, 1)]
    parts.append(Text(_legend(comparison), style="dim"))
    if control:
        parts += [Text(RULE, style="dim"), Text(comparison.recommend()[1], style="bold")]
    return Group(*parts)


def _title(comparison: Comparison) -> Text:
    seeds = [run.planned.seed for run in comparison.rows[0].runs]
    reused = sum(run.reused for row in comparison.rows for run in row.runs)
    kept = f", {reused} finished runs reused" if reused else ""
    return Text(f"{comparison.task}: seeds {', '.join(map(str, seeds))}{kept}", style="bold")


def _legend(comparison: Comparison) -> str:
    return (
        "Mean ± sample deviation over seeds; in brackets the ratio to the control. File: the "
        "packed .whit "
        "file on disk. MACs by weight and activation bits (w1a32: 1-bit weights, 32-bit "
        "activations). "
        "Energy: modelled (45 nm table, compute and memory), not this machine's. Latency: packed "
        "file, "
        "batch 1, median, measured after all trainings. The test split of this task was read "
        f"{comparison.test_reads} times so far in {comparison.out}; choose by validation."
    )


def _cells(row: Row, notes: list[str]) -> list[Text]:
    name = Text(row.label)
    for note in row.notes:
        name.append(f" {_mark(note, notes)}", style="yellow")
    cells = [name, Text(_quality(row, f"valid_{row.metric}")), _test(row)]
    cells.append(_number(row, "stored_bytes", notes, "{:,.0f}"))
    cells.append(_macs(row, notes))
    cells.append(_number(row, "energy_nj", notes, "{:,.3g}", ratio=False))
    cells.append(_number(row, "latency_ms", notes, "{:.3g}", ratio=False))
    cells.append(_number(row, "train_seconds", notes, "{:.1f}", ratio=False))
    return cells


def _mark(note: str, notes: list[str]) -> str:
    """Return the footnote's number, adding the footnote when it is new."""
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def _quality(row: Row, column: str) -> str:
    text = f"{row.means[column]:.4f}"
    return text + (f"\n±{row.spreads[column]:.4f}" if column in row.spreads else "")


def _test(row: Row) -> Text:
    text = Text(_quality(row, f"test_{row.metric}"))
    if row.verdict is not None:
        text.append(f"\n{row.verdict.word}", style=_COLORS.get(row.verdict.word, "dim"))
    return text


def _number(row: Row, column: str, notes: list[str], form: str, ratio: bool = True) -> Text:
    if column not in row.means:
        reason = row.reasons.get(column, "not measured")
        return Text(f"? {_mark(f'{column} is unknown: {reason}', notes)}", style="yellow")
    text = form.format(row.means[column])
    if ratio and column in row.relative:
        text += f"\n({ratio_text(row.relative[column])})"
    return Text(text)


def _macs(row: Row, notes: list[str]) -> Text:
    if row.macs_by_width is None:
        return _number(row, "macs", notes, "{:,.0f}")
    return Text(macs_text(row.macs_by_width))


def macs_text(macs_by_width: dict[str, int]) -> str:
    """Return MACs by width in short form, one width a line, such as "38k w1a1"."""
    return "\n".join(f"{short(count)} {width}" for width, count in macs_by_width.items()) or "0"


def ratio_text(ratio: float) -> str:
    """Return a ratio as a reader takes it in: "1/24" for small ones, "x1.30" for large ones."""
    if 0 < ratio < 0.5:
        return f"1/{1 / ratio:.1f}" if ratio > 0.1 else f"1/{1 / ratio:.0f}"
    return f"x{ratio:.2f}"


def short(count: float) -> str:
    """Return a count with k, M or G and three digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def card_view(columns: dict[str, Any]) -> Table:
    """Return one scorecard as a list of names and values, unknown ones with their reason."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    reasons = columns.get("reasons") or {}
    for name, value in columns.items():
        if name not in ("reasons", "schema"):
            table.add_row(name, _value(value, reasons.get(name, "not measured")))
    return table


def _value(value: object, reason: str) -> str:
    if value is None:
        return f"unknown: {reason}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{short(count)} {width}" for width, count in value.items()) or "none"
    return str(value)


def listing(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a plain table of texts."""
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table
