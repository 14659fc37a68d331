"""The table of a comparison, for somebody who has to decide, as wide as the window."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from whit.measure.verdict import RULE
from whit.reporting.layout import (
    macs_text,
    name_lines,
    name_pieces,
    ratio_text,
    routes_text,
    short,
    shown_name,
    significant,
    wrapped,
)

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

WIDTH = 112
_COLORS = {"better": "green", "worse": "red"}
_GAP = 2
_NAME = 18
_VERDICT = 14
# Left out, in this order, when the window is too narrow.
_DISPENSABLE = ("train", "latency", "energy", "MACs")
_BY_SHARE = ("accuracy",)
_UNDECIDED = (
    "Under a verdict the 95 % interval of the difference over seeds: 'within noise' is undecided, "
    "not 'as good as'"
)
_ZEROS = (
    "Energy assumes hardware that skips multiplications by zero (in ternary layers); the runtime "
    "timed here does not"
)

_ROUTES = (
    "Behind a route, MACs and energy are means over the validation inputs; route: share of the "
    "inputs in each situation, the familiar one first"
)


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
    return _View(comparison, control)


@dataclass(frozen=True)
class _Column:
    """One column: heading, one text per row, and the short name by which it may be left out."""

    name: str
    head: str
    cells: list[Text]

    @property
    def width(self) -> int:
        texts = [self.head, *(cell.plain for cell in self.cells)]
        return max(len(line) for text in texts for line in (text.splitlines() or [""]))


@dataclass
class _View:
    comparison: Comparison
    control: bool
    notes: list[str] = field(default_factory=list)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        self.notes = []
        names = [self._name(row) for row in self.comparison.rows]
        columns = self._columns()
        widest = max(len(piece.rstrip()) for name in names for piece in name_pieces(name))
        least = min(max(_NAME, widest + 2), options.max_width // 3)
        left_out: list[str] = []
        for name in _DISPENSABLE:
            if _total(columns) + least <= options.max_width:
                break
            left_out += [c.head.replace("\n", " ") for c in columns if c.name == name]
            columns = [column for column in columns if column.name != name]
        space = max(_NAME // 2, options.max_width - _total(columns))
        yield _title(self.comparison)
        yield self._table(names, columns, min(space, max(map(len, names))))
        yield Text("")
        yield from (Text(f"[{n}] {note}", style="dim") for n, note in enumerate(self.notes, 1))
        if left_out:
            kept = f"{self.comparison.out}/results.jsonl"
            said = f"Left out, as the window is narrow: {', '.join(left_out)}; see --json or {kept}"
            yield Text(f"{said}.", style="dim")
        yield Text(_legend(self.comparison, self.control, {c.name for c in columns}), style="dim")
        if self.control:
            yield Text(RULE, style="dim")
            yield Text(self.comparison.recommend()[1], style="bold")

    def _name(self, row: Row) -> str:
        marks = [f" {_mark(note, self.notes)}" for note in row.notes]
        return shown_name(row.label) + "".join(marks)

    def _columns(self) -> list[_Column]:
        rows, metric = self.comparison.rows, self.comparison.rows[0].metric
        columns = [
            _Column("valid", f"valid\n{metric}", [_quality(row, "valid") for row in rows]),
            _Column("test", f"test\n{metric}", [_quality(row, "test") for row in rows]),
        ]
        if self.control:
            columns.append(_Column("verdict", "verdict", [self._verdict(row) for row in rows]))
        columns += [
            _Column("file", "file\nbytes", [self._number(r, "stored_bytes", 0) for r in rows]),
            _Column("MACs", "MACs", [self._macs(row) for row in rows]),
            _Column("energy", "energy\nnJ", [self._number(row, "energy_nj", 4) for row in rows]),
            _Column("latency", "latency\nms (torch)", [self._latency(row) for row in rows]),
            _Column("train", "train\ns", [self._number(r, "train_seconds", 1) for r in rows]),
        ]
        return columns

    def _table(self, names: list[str], columns: list[_Column], width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        table.add_column("technique", width=width, no_wrap=True)
        for column in columns:
            left = column.name == "verdict"
            table.add_column(
                column.head, width=column.width, no_wrap=True, justify="left" if left else "right"
            )
        for number, name in enumerate(names):
            cells = [column.cells[number] for column in columns]
            table.add_row(Text("\n".join(name_lines(name, width))), *cells)
        return table

    def _verdict(self, row: Row) -> Text:
        if row.failed:
            return Text(f"not possible\n{_mark(row.failed, self.notes)}", style="yellow")
        if row.verdict is None:
            return Text("control", style="dim")
        text = Text(row.verdict.word, style=_COLORS.get(row.verdict.word, ""))
        interval = row.verdict.interval_text(row.metric in _BY_SHARE)
        return text.append(f"\n{wrapped(interval, _VERDICT)}", style="dim")

    def _number(self, row: Row, column: str, digits: int) -> Text:
        if row.failed:
            return Text("-", style="dim")
        if column not in row.means:
            return Text(f"? {_mark(_unknown(row, column), self.notes)}", style="yellow")
        value = row.means[column]
        if column == "train_seconds":
            return Text(f"{value:,.1f}")
        text = significant(value, digits) if digits else f"{value:,.0f}"
        if column == "stored_bytes" and column in row.relative:
            text += f"\n({ratio_text(row.relative[column])})"
        return Text(text)

    def _latency(self, row: Row) -> Text:
        text = self._number(row, "latency_ms", 3)
        in_torch = None if row.failed else row.means.get("torch_latency_ms")
        return text if in_torch is None else text.append(f"\n({significant(in_torch, 3)})")

    def _macs(self, row: Row) -> Text:
        if row.failed or row.macs_by_width is None:
            return self._number(row, "macs", 0)
        text = macs_text(row.macs_by_width)
        nonzero = row.nonzero_macs
        if nonzero is not None and nonzero < 0.95 * sum(row.macs_by_width.values()):
            text += f"\n{short(nonzero)} non-zero"
        return Text("\n".join([text, *routes_text(row.best.columns.get("route_shares"))]))


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def _title(comparison: Comparison) -> Text:
    seeds = [run.planned.seed for run in comparison.rows[0].runs]
    reused = sum(run.reused for row in comparison.rows for run in row.runs)
    runs = "run" if reused == 1 else "runs"
    kept = f", {reused} finished {runs} reused" if reused else ""
    name = "seed" if len(seeds) == 1 else "seeds"
    text = f"{comparison.task}: {name} {', '.join(map(str, seeds))}{kept}\n"
    return Text(text, style="bold")


def _legend(comparison: Comparison, control: bool, shown: set[str]) -> str:
    several = len(comparison.rows[0].runs) > 1
    mean = "Mean ± sample deviation over seeds" if several else "One seed"
    ratio = "; in brackets under the bytes the ratio to the control" if control else ""
    said = [("valid", f"{mean}{ratio}")]
    if several and control:
        said.append(("valid", _UNDECIDED))
    said += [
        ("file", "File: the packed .whit file on disk"),
        ("MACs", "MACs by weight and activation bits (w1a32: 1-bit weights, 32-bit activations)"),
        ("MACs", "Non-zero: MACs whose weight is not 0"),
        *([("MACs", _ROUTES)] if _routed(comparison) else []),
        ("energy", "Energy: modelled (45 nm table, compute and memory), not this machine's"),
        ("energy", _ZEROS),
        ("latency", _latency_text(comparison)),
    ]
    times = "once" if comparison.test_reads == 1 else f"{comparison.test_reads} times"
    reads = f"The test split of this task was read {times} so far in {comparison.out}"
    said.append(("test", f"{reads}; choose by validation"))
    return ". ".join(text for column, text in said if column in shown) + "."


def _routed(comparison: Comparison) -> bool:
    return any(run.columns.get("route_shares") for row in comparison.rows for run in row.runs)


def _latency_text(comparison: Comparison) -> str:
    backends = {
        run.columns.get("latency_backend") for row in comparison.rows for run in row.runs
    } - {None}
    kernels = "in NumPy, as there are no native kernels here" if "reference" in backends else ""
    return (
        f"Latency: packed file{' ' + kernels if kernels else ''}, in brackets the model in torch "
        "(float32); batch 1, 1 thread, medians, in turns after all trainings"
    )


def _mark(note: str, notes: list[str]) -> str:
    """Return the footnote's number, adding the footnote when it is new."""
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def _quality(row: Row, split: str) -> Text:
    if row.failed:
        return Text("-", style="dim")
    column = f"{split}_{row.metric}"
    spread = f"\n±{row.spreads[column]:.4f}" if column in row.spreads else ""
    return Text(f"{row.means[column]:.4f}{spread}")


def _unknown(row: Row, column: str) -> str:
    return f"unknown: {row.reasons.get(column, 'not measured')}"


def card_view(columns: dict[str, Any]) -> RenderableType:
    """Return one scorecard as a list of names and values; each reason of unknown ones once."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    reasons = columns.get("reasons") or {}
    notes: list[str] = []
    for name, value in columns.items():
        if name in ("reasons", "schema") or (name == "layers" and value is not None):
            continue
        if value is None:
            mark = _mark(reasons.get(name, "not measured"), notes)
            table.add_row(name, Text(f"unknown, see {mark}"))
        else:
            table.add_row(name, _value(value))
    marked = (Text(f"[{n}] {note}", style="dim") for n, note in enumerate(notes, 1))
    layers = columns.get("layers")
    return Group(table, *marked, *([layers_view(layers)] if layers else []))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(routes_text(value))
    if isinstance(value, dict):
        return ", ".join(f"{short(count)} {width}" for width, count in value.items()) or "none"
    return str(value)


def layers_view(layers: Sequence[Mapping[str, Any]]) -> Table:
    """Return the weights of a packed file: bits and bytes, before => after, and why.

    Args:
        layers: as in the scorecard's column.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("layer", "format", "bits", "bytes", "Huffman"):
        numbers = head in ("bits", "bytes", "Huffman")
        table.add_column(head, no_wrap=True, justify="right" if numbers else "left")
    table.add_column("why", overflow="fold")
    for layer in layers:
        huffman = layer["huffman_bytes"]
        table.add_row(
            f"{layer['module'] or 'model'} ({layer['kind']})",
            layer["format"],
            f"{layer['bits']:.3g}",
            f"{layer['before_bytes']:,} => {layer['after_bytes']:,}",
            "-" if huffman is None else f"{huffman:,}",
            str(layer["reason"]).partition(": ")[2],
        )
    return table


def comparison_layers(comparison: Comparison) -> RenderableType:
    """Return the layers of each technique's best run, or why its model could not be packed."""
    parts: list[RenderableType] = []
    for row in comparison.rows:
        parts.append(Text(shown_name(row.label), style="bold"))
        layers = None if row.failed else row.best.columns.get("layers")
        reason = row.failed or row.reasons.get("layers", "the run is of an older version")
        parts.append(layers_view(layers) if layers else Text(f"not packed: {reason}"))
    return Group(*parts)


def listing(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a plain table of texts."""
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table
