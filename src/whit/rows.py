"""The rows of a comparison: means and spreads over seeds, judged against a control."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from statistics import fmean, stdev
from typing import Any

from whit.core.technique import PLAIN
from whit.errors import WhitError
from whit.measure.columns import NUMERIC_COLUMNS
from whit.measure.verdict import Verdict, judge
from whit.runs import DEFAULT_FOLDER, Finished
from whit.spec_strings import Entry
from whit.tuning import Tuned

UNEQUAL_COMPUTE = 0.10


@dataclass(frozen=True)
class Row:
    """One technique over its seeds.

    Attributes:
        spec: canonical, with settings after `@` if it has its own.
        runs: one per seed.
        means: numeric columns, mean over seeds; a column unknown for one seed is left out.
        spreads: sample standard deviation over seeds; empty with one seed.
        relative: mean over the control's mean, where that is not 0.
        reasons: why columns are unknown.
        verdict: against the control; None for the control and for runs without one.
        notes: what a reader must know, such as unequal compute.
        label: the spec as the user wrote it.
        failed: why the technique could not be carried out; the other columns are empty then.
        control: label of the control that the row is judged against; "" for the control itself.
        command: that carries out this row again.
        stale: whether code, data, versions or threads have changed since the runs.
    """

    spec: str
    runs: tuple[Finished, ...]
    means: dict[str, float]
    spreads: dict[str, float]
    relative: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()
    label: str = ""
    failed: str = ""
    control: str = ""
    command: str = ""
    stale: bool = False

    def __repr__(self) -> str:
        if self.failed:
            return f"Row({self.label!r}, not possible: {self.failed})"
        columns = (f"valid_{self.metric}", f"test_{self.metric}", "stored_bytes", "latency_ms")
        known = ", ".join(f"{c}={self.means[c]:.6g}" for c in columns if c in self.means)
        return f"Row({self.label!r}, {known}, seeds={len(self.runs)})"

    @property
    def metric(self) -> str:
        """Name of the quality measure."""
        return str(self.runs[0].columns["metric"])

    @property
    def valid(self) -> float:
        """Mean quality on the validation split; minus infinity where it is no number."""
        return self.means.get(f"valid_{self.metric}", -inf)

    @property
    def macs_by_width(self) -> dict[str, int] | None:
        """Multiply-accumulates by widths of the best seed's file."""
        found: dict[str, int] | None = self.best.columns["macs_by_width"]
        return found

    @property
    def nonzero_macs(self) -> int | None:
        """Multiply-accumulates of the best seed's file whose weight is not 0; None if unknown.

        Unknown for a network with routes too: their MACs are means over inputs.
        """
        if self.best.columns.get("route_shares"):
            return None
        from whit.runtime import load

        path = self.best.packed_path
        try:
            operators = load(path).operators if path is not None else None
        except WhitError:
            return None
        return None if operators is None else sum(op.effective_macs for op in operators)

    @property
    def best(self) -> Finished:
        """The seed with the highest validation quality."""

        def quality(run: Finished) -> float:
            found = run.columns[f"valid_{self.metric}"]
            return found if found is not None and isfinite(found) else -inf

        return max(self.runs, key=quality)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        return {
            "spec": self.spec,
            "label": self.label,
            "seeds": [run.planned.seed for run in self.runs],
            "means": self.means,
            "spreads": self.spreads,
            "relative": self.relative,
            "macs_by_width": None if self.failed else self.macs_by_width,
            "reasons": self.reasons,
            "verdict": None if self.verdict is None else vars(self.verdict),
            "notes": list(self.notes),
            "failed": self.failed or None,
            "control": self.control or None,
            "command": self.command,
            "stale": self.stale,
            "reused": sum(run.reused for run in self.runs),
            "folders": [str(run.planned.folder) for run in self.runs],
        }


def rows_of(
    entries: Sequence[Entry],
    finished: Sequence[Finished],
    failed: Mapping[str, str],
    *,
    control: bool = True,
    tuned: Mapping[str, Tuned] | None = None,
) -> tuple[Row, ...]:
    """Gather the runs of each entry and judge them.

    A row is judged against the plain row that was trained with the same settings; where there is
    none, against the first one, and it is marked when its training cost differs.

    Args:
        entries: in the order of the rows; with `control`, the first is the control.
        finished: all runs.
        failed: reasons of entries that could not be carried out, by text.
        control: whether to judge.
        tuned: how learning rates were chosen, by the entry's text.
    """
    rows: list[Row] = []
    for entry in entries:
        runs = tuple(run for run in finished if run.planned.entry.text == entry.text)
        if entry.text in failed:
            rows.append(Row(entry.text, runs, {}, {}, label=entry.label, failed=failed[entry.text]))
        else:
            rows.append(_charged(_row(entry, runs), (tuned or {}).get(entry.text)))
    if not control or not rows:
        return tuple(rows)
    controls = [row for row in rows if not row.failed and _is_plain(row)]
    return (rows[0], *(_judged(row, controls, tuned or {}) for row in rows[1:]))


def _is_plain(row: Row) -> bool:
    return row.runs[0].planned.entry.technique.spec == PLAIN


def _row(entry: Entry, runs: tuple[Finished, ...]) -> Row:
    metric = runs[0].columns["metric"]
    means, spreads, reasons = {}, {}, {}
    for column in (f"valid_{metric}", f"test_{metric}", *NUMERIC_COLUMNS):
        # Runs of an older version lack the newer columns.
        values = [run.columns[column] for run in runs if run.columns.get(column) is not None]
        if len(values) < len(runs):
            failed = next(run for run in runs if run.columns.get(column) is None)
            reasons[column] = failed.columns["reasons"].get(column, "not measured")
            continue
        if not all(isfinite(value) for value in values):
            reasons[column] = "not a finite number for at least one seed"
            continue
        means[column] = fmean(values)
        if len(values) > 1:
            spreads[column] = stdev(values)
    return Row(
        entry.text, runs, means, spreads, reasons=reasons, label=entry.label, command=command(runs)
    )


def command(runs: Sequence[Finished]) -> str:
    """Return the command line that carries out these runs again, or finds them finished."""
    plan = runs[0].planned
    # All changes, those of the whole comparison included, are written behind the technique's "@".
    written = ", ".join(f"{name}={value!r}" for name, value in plan.changes.items())
    spec = plan.entry.label.partition(" @ ")[0] + (f" @ {written}" if written else "")
    words = ["whit", "run", plan.task, spec]
    out = str(plan.folder.parents[1])
    end = [] if out == DEFAULT_FOLDER else ["--out", out]
    seeds = [run.planned.seed for run in runs]
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        parts = [[*words, "--seed", str(seeds[0]), "--seeds", str(len(seeds)), *end]]
    else:
        parts = [[*words, "--seed", str(seed), *end] for seed in seeds]
    return " && ".join(shlex.join(part) for part in parts)


def _charged(row: Row, tuned: Tuned | None) -> Row:
    """Add the cost of the trials that chose the row's learning rate."""
    if tuned is None:
        return row
    means = {
        **row.means,
        "train_macs": row.means["train_macs"] + tuned.train_macs,
        "train_seconds": row.means["train_seconds"] + tuned.train_seconds,
    }
    return replace(row, means=means, notes=(*row.notes, tuned.note()))


def _judged(row: Row, controls: Sequence[Row], tuned: Mapping[str, Tuned]) -> Row:
    """Return the row beside its control: ratios, verdict, notes."""
    if row.failed:
        return row
    first = controls[0]
    settings = _compared_settings(row, tuned)
    alike = [c for c in controls[1:] if c is not row and _compared_settings(c, tuned) == settings]
    own = _compared_settings(first, tuned) == settings
    control = first if own or not alike or _is_plain(row) else alike[0]
    if control is not first:
        said = f"second control: judged against '{control.label}', and so are the ratios"
        row = replace(row, notes=(*row.notes, said))
    return _beside(row, control, own or control is not first)


def _compared_settings(row: Row, tuned: Mapping[str, Tuned]) -> dict[str, object]:
    settings = row.runs[0].planned.settings.as_dict()
    if row.spec in tuned:  # every technique had the same grid of rates
        del settings["learning_rate"]
    return settings


def _beside(row: Row, control: Row, same_settings: bool) -> Row:
    relative = {
        column: mean / control.means[column]
        for column, mean in row.means.items()
        if control.means.get(column)
    }
    correct = [run.test_correct for run in row.runs if run.test_correct is not None]
    plain = [run.test_correct for run in control.runs if run.test_correct is not None]
    both = len(correct) == len(plain) == len(row.runs)
    test = f"test_{row.metric}"
    verdict = judge(
        [run.columns[test] for run in row.runs],
        [run.columns[test] for run in control.runs],
        correct if both else None,
        plain if both else None,
    )
    notes = list(row.notes)
    ratio = relative.get("train_macs", 1.0)
    if not same_settings or abs(ratio - 1) > UNEQUAL_COMPUTE:
        why = "" if same_settings else "other settings than the control; "
        notes.append(f"unequal compute: {why}{ratio:.2f} times the control's training MACs")
    return replace(
        row, relative=relative, verdict=verdict, notes=tuple(notes), control=control.label
    )
