"""Packed files that the command line leaves in the user's folder, and what they replace there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whit.atomic_files import write_atomically

if TYPE_CHECKING:
    from whit.comparison import Comparison

SAVED_INPUTS = 8


@dataclass(frozen=True)
class Saved:
    """What was written.

    Attributes:
        files: the model and the inputs; empty when the recommended model has no packed file.
        replaced: the other file that was there before, in words; empty if there was none.
        kept: the copy of the model beside its runs.
        report: the report page.
    """

    files: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    kept: str = ""
    report: str = ""


def save_comparison_files(table: Comparison, folder: Path) -> Saved:
    """Write the record of the comparison, the recommended model, and the report page."""
    from whit.saved_comparison import save_comparison

    save_comparison(table)
    return replace(save_recommended(table, folder), report=str(save_report(table, folder)))


def save_report(table: Comparison, folder: Path) -> Path:
    """Write the report page beside the runs and as `<task>-report.html`; return the latter path.

    Tasks of one name, such as two tables, share the latter; that beside the runs is their own.
    """
    from whit.grammar import parse_call
    from whit.reporting.page import write_report
    from whit.runs import task_folder

    write_report(table, task_folder(table.out, table.task) / "report.html")
    return write_report(table, folder / f"{parse_call(table.task).name}-report.html")


def save_recommended(table: Comparison, folder: Path) -> Saved:
    """Copy the best seed's packed file and write a few raw validation inputs beside it."""
    from whit.core.result import save_array
    from whit.grammar import parse_call
    from whit.runs import folder_name
    from whit.spec_strings import task

    best = table.recommend()[0].best
    if best.packed_path is None:
        return Saved()
    name = parse_call(table.task).name
    packed, inputs = folder / f"{name}.whit", folder / f"{name}-inputs.npy"
    content = best.packed_path.read_bytes()
    before = described_other(packed, content)
    kept = Path(table.out) / folder_name(table.task) / "recommended.whit"
    for path in (packed, kept):
        write_atomically(path, lambda partial: partial.write_bytes(content))
    technique = best.planned.entry.technique
    data: Any = technique.prepare_data(task(table.task).load().sealed())
    samples = data.valid.inputs[0][:SAVED_INPUTS].numpy()
    write_atomically(inputs, lambda path: save_array(path, samples))
    replaced = () if before is None else (before,)
    return Saved((str(packed), str(inputs)), replaced, str(kept))


def described_other(path: Path, content: bytes) -> str | None:
    """Return name, spec and size of a file with other content; None when there is none."""
    from whit.errors import WhitError
    from whit.runtime import load

    try:
        before = path.read_bytes()
    except OSError:
        return None
    if before == content:
        return None
    try:
        spec = str(load(path).info.get("spec", "of unknown technique"))
    except WhitError:
        spec = "no .whit file that can be read"
    return f"{path} ({spec}, {len(before):,} bytes)"
