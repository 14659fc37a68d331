"""The text of `whit check`: the model, a table of techniques, then each technique's layers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from whit.reporting.layout import macs_text, ratio_text, short, shown_name

if TYPE_CHECKING:
    from whit.activation_calls import ActivationCall
    from whit.check_facts import DataFacts, ModelFacts, PackedEstimate
    from whit.checking import Check, Checked
    from whit.layer_changes import Change, Skipped
    from whit.packing.packer import PackedLayer

WIDTH = 112
MOST_LINES = 24
MOST_PATHS = 8
MOST_NAMES = 10
# torch's counter knows nothing of their multiply-accumulates.
_RECURRENT = {"RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"}


def check_text(check: Check) -> str:
    """Return the whole view as plain text."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(check_view(check))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def check_view(check: Check) -> RenderableType:
    """Return the view of a check, to be printed by rich at any width from 60 columns on."""
    parts: list[RenderableType] = [Text(f"{check.task}: before any training\n", style="bold")]
    parts.append(_facts(check))
    parts += [Text(""), _summary(check), Text(_legend(check), style="dim")]
    parts += [_section(row, check.control) for row in check.rows[1:]]
    return Group(*parts)


def _facts(check: Check) -> Table:
    table = _pairs()
    for name, text in (*_model_lines(check.model), *_data_lines(check.data)):
        _add(table, name, text)
    settings = check.settings
    cost = short(check.control.train_macs)
    _add(
        table,
        "training",
        f"{settings.epochs} epochs, batches of {settings.batch_size}; about {cost} MACs for the "
        "control",
    )
    if check.control.cannot_pack:
        table.add_row("packing", Text(check.control.cannot_pack, style="yellow"))
    return table


def _add(table: Table, *texts: str) -> None:
    # As they are: rich would read "[name]" in a plain string as markup.
    table.add_row(*map(Text, texts))


def _pairs() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _model_lines(model: ModelFacts) -> Iterator[tuple[str, str]]:
    size = f"{model.params:,} parameters, {model.float32_bytes:,} bytes as float32"
    uncounted = ", without recurrent layers" if _RECURRENT & model.kinds.keys() else ""
    yield "model", f"{size}; {short(model.macs)} MACs{uncounted}"
    yield "", ", ".join(f"{count} {kind}" for kind, count in model.kinds.items())
    inputs = " and ".join(str(list(shape)) for shape in model.input_shapes)
    yield "", f"{inputs} => {list(model.output_shape)}, as the task expects"
    if model.calls:
        yield "called", f"{'; '.join(_call_texts(model.calls))}: in forward, without a module"
    if model.shared:
        yield "shared", "; ".join(model.shared)


def _call_texts(calls: Sequence[ActivationCall]) -> Iterator[str]:
    groups: dict[tuple[str, int, str], list[str]] = {}
    for call in calls:
        groups.setdefault((call.function, call.count, call.kind), []).append(call.path)
    for (function, count, kind), paths in groups.items():
        times = "" if count == 1 else f" {count} times"
        where = f"{kind} itself" if paths == [""] else f"{_paths(paths)} ({kind})"
        yield f"{function}{times} in {where}"


def _data_lines(data: DataFacts) -> Iterator[tuple[str, str]]:
    samples = ", ".join(f"{count:,} {split}" for split, count in data.samples.items())
    types = " and ".join(data.input_types)
    span = data.input_range
    limits = "" if span is None else f", values {span[0]:g} to {span[1]:g}"
    yield "data", f"{samples} samples of {types}{limits}"
    names = data.class_names
    if names:
        shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
        yield "", f"{len(names)} classes: {shown}"


def _summary(check: Check) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("technique", overflow="fold", min_width=16)
    for head in ("layers\nchanged", "file bytes\n(estimated)", "bits a\nweight"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("training\nMACs", justify="right", no_wrap=True)
    for row in check.rows:
        name = shown_name(row.label) + (" (control)" if row is check.control else "")
        table.add_row(Text(name), *_cells(row, check.control))
    return table


def _cells(row: Checked, control: Checked) -> Iterator[Text]:
    if row.refused:
        yield Text("refused", style="yellow")
        yield from (Text("-", style="dim") for _ in range(4))
        return
    yield Text("-" if row is control else str(len(row.changed)))
    estimate = row.estimate
    if estimate is None:
        yield Text("no file", style="yellow")
        yield from (Text("-", style="dim") for _ in range(2))
    else:
        size = f"{estimate.stored_bytes:,}"
        ratio = row.bytes_ratio(control)
        if row is not control and ratio is not None:
            size += f"\n({ratio_text(ratio)})"
        yield Text(size)
        yield Text(f"{estimate.bits:.3g}")
        yield Text(macs_text(estimate.macs_by_width))
    yield Text(f"x{row.train_ratio:.2f}")


def _legend(check: Check) -> str:
    steps = f"{check.steps} optimiser steps on {check.samples} samples"
    said = [
        f"Nothing was trained. Each technique was rehearsed ({steps}) and its model packed: file "
        "bytes, bits and zeros are estimates, since trained weights decide them",
        "MACs by weight and activation bits",
        "Training MACs: over the control's, estimated for all samples and epochs",
        f"The test split was not read. This took {check.seconds:.1f} s",
    ]
    return "\n" + ". ".join(said) + "."


def _section(row: Checked, control: Checked) -> RenderableType:
    acts = f"  acts {', '.join(row.acts)}" if row.acts else ""
    title = Text(f"\n{shown_name(row.label)}", style="bold")
    if row.refused:
        return Group(title, _indented(Text(f"refused: {row.refused}", style="yellow")))
    parts: list[RenderableType] = [title, Text(acts, style="dim")]
    if row.changed:
        parts.append(_indented(_changed(row)))
    else:
        parts.append(_indented(Text("no layer is changed: only the training, or values, differ")))
    parts += [_indented(Text(note)) for note in row.found.notes]
    if row.skipped:
        parts.append(_indented(_skipped(row.skipped)))
    parts.append(_indented(_packing(row, control)))
    return Group(*parts)


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2))


def _changed(row: Checked) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("changed", overflow="fold", ratio=3)
    table.add_column("kind", no_wrap=True)
    table.add_column("how", overflow="fold", ratio=5)
    lines = _grouped(row.changed, row.estimate)
    if row.estimate is not None:
        table.add_column("stored as", overflow="fold", ratio=2)
    for line in lines[:MOST_LINES]:
        stored = [line.stored_text()] if row.estimate is not None else []
        _add(table, _paths(line.paths), line.kind, line.how_text(), *stored)
    if len(lines) > MOST_LINES:
        _add(table, f"and {len(lines) - MOST_LINES} more lines: see --json")
    return table


@dataclass
class _Line:
    """Layers of one kind with the same changes and the same storage format."""

    kind: str
    how: tuple[str, ...]
    format: str
    paths: list[str] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)

    def how_text(self) -> str:
        shares = [int(100 * share) for share in self.zeros]  # rounded down: 100 % is all
        return "; ".join([*self.how, *([f"{_span(shares)} % zeros"] if shares else [])])

    def stored_text(self) -> str:
        return f"{_span(self.bits)} bit ({self.format})" if self.bits else ""


def _span(values: Sequence[float]) -> str:
    """Return one number, or the lowest and the highest."""
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _grouped(changed: Sequence[Change], estimate: PackedEstimate | None) -> list[_Line]:
    lines: dict[tuple[object, ...], _Line] = {}
    for change in changed:
        stored = _stored(change.path, estimate)
        form = "" if stored is None else stored.format
        key = (change.kind, change.how, form, change.zeros is None)
        line = lines.setdefault(key, _Line(change.kind, change.how, form))
        line.paths.append(change.path)
        line.zeros += [] if change.zeros is None else [change.zeros]
        line.bits += [] if stored is None else [stored.bits]
    return list(lines.values())


def _stored(path: str, estimate: PackedEstimate | None) -> PackedLayer | None:
    # A layer that was wrapped ("conv" in "pad" and "conv") lies one step deeper in the file.
    layers = () if estimate is None else estimate.layers
    own = [one for one in layers if one.module == path]
    own = own or [one for one in layers if path and one.module.startswith(f"{path}.")]
    return own[0] if len(own) == 1 else None


def _skipped(skipped: Sequence[Skipped]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("left alone", overflow="fold", ratio=3)
    table.add_column("kind", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=6)
    for one in skipped[:MOST_LINES]:
        numbers = f" ({one.numbers:,} numbers)" if one.numbers else ""
        _add(table, _paths(one.paths), one.kind, one.reason + numbers)
    return table


def _packing(row: Checked, control: Checked) -> Text:
    if row.estimate is None:
        same = row.cannot_pack == control.cannot_pack
        reason = ", for the control's reason (see above)" if same else f": {row.cannot_pack}"
        return Text(f"cannot be packed{reason}", style="yellow")
    kinds = ", ".join(
        f"{kind} x{count}" if count > 1 else kind for kind, count in row.estimate.operators.items()
    )
    size = f"{row.estimate.stored_bytes:,} bytes, {row.estimate.weight_bytes:,} of them constants"
    return Text(f"packs: {size}; operators: {kinds}", style="green")


def _paths(paths: Sequence[str]) -> str:
    shown = ", ".join(map(_name, paths[:MOST_PATHS]))
    more = len(paths) - MOST_PATHS
    return f"{shown} and {more} more" if more > 0 else shown


def _name(path: str) -> str:
    return path or "(the model)"
