"""Compare techniques with the plain control under one protocol, and choose on validation alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from whit.core.budget import Budget
from whit.core.options import nearest
from whit.core.task import Task
from whit.core.technique import PLAIN
from whit.errors import SettingsError, SpecError, TaskError, WhitError
from whit.measure.columns import NUMERIC_COLUMNS
from whit.measure.verdict import Verdict, judge
from whit.reporting.failures import reason_of
from whit.reporting.recommendation import TOLERANCE, check_tolerance, recommendation
from whit.runs import DEFAULT_FOLDER, Finished, Planned, ShowStep, carry_out, plan_runs, seed_list
from whit.spec_strings import Entry, parse_entry
from whit.spec_strings import task as find_task

DEFAULT = (
    "binarized_network()",
    "one_cycle_pruning(sparsity=0.9)",
    "magnitude_pruning()",
    "distillation(student_width=0.25)",
    "binarized_network() + one_cycle_pruning(sparsity=0.5)",
)
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
        """Mean quality on the validation split."""
        return self.means[f"valid_{self.metric}"]

    @property
    def macs_by_width(self) -> dict[str, int] | None:
        """Multiply-accumulates by widths of the best seed's file."""
        found: dict[str, int] | None = self.best.columns["macs_by_width"]
        return found

    @property
    def nonzero_macs(self) -> int | None:
        """Multiply-accumulates of the best seed's file whose weight is not 0; None if unknown."""
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
        return max(self.runs, key=lambda run: float(run.columns[f"valid_{self.metric}"]))

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
            "reused": sum(run.reused for run in self.runs),
            "folders": [str(run.planned.folder) for run in self.runs],
        }


@dataclass(frozen=True)
class Comparison:
    """A table of techniques, the control first.

    Attributes:
        task: reference of the task.
        rows: one per technique.
        budget: limits that a recommendation must keep.
        out: folder of the runs and of `results.jsonl`.
        test_reads: how often the test split of this task was read, by the store.
        tolerance: loss of validation quality that a recommended technique may have, 0..1.
    """

    task: str
    rows: tuple[Row, ...]
    budget: Budget = field(default_factory=Budget)
    out: str = DEFAULT_FOLDER
    test_reads: int = 0
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        """Check the tolerance."""
        check_tolerance(self.tolerance)

    def __repr__(self) -> str:
        labels = ", ".join(row.label for row in self.rows)
        return f"Comparison({self.task!r}, {len(self.rows)} rows: {labels}; print it for the table)"

    def __str__(self) -> str:
        from whit.reporting.table import comparison_text

        return comparison_text(self)

    @property
    def control(self) -> Row:
        """The plain control's row."""
        return self.rows[0]

    def pareto(self, quality: str, cost: str) -> list[Row]:
        """Return the rows that no other row beats in both columns, cheapest first.

        Args:
            quality: column where higher is better, such as "valid_accuracy".
            cost: column where lower is better, such as "stored_bytes".

        Raises:
            SpecError: an unknown column, or one of the test split.
        """
        for column in (quality, cost):
            self._check_column(column)
        known = [r for r in self.rows if quality in r.means and cost in r.means]
        known.sort(key=lambda r: (r.means[cost], -r.means[quality]))
        front: list[Row] = []
        for row in known:
            if not front or row.means[quality] > front[-1].means[quality]:
                front.append(row)
        return front

    def recommend(
        self, budget: Budget | None = None, tolerance: float | None = None
    ) -> tuple[Row, str]:
        """Return the row to use, and the rule that chose it in words.

        The smallest file among the techniques that keep the budget and lose at most `tolerance` of
        the control's mean validation quality, if it is smaller than the control's by 5 %; else the
        control. Where neither has a file within the budget: the best validation quality.

        Args:
            budget: the comparison's own by default.
            tolerance: 0..1, the comparison's own (0.01) by default.

        Raises:
            SettingsError: a tolerance out of range.
        """
        return recommendation(
            self,
            self.budget if budget is None else budget,
            self.tolerance if tolerance is None else tolerance,
        )

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of techniques that could not be carried out."""
        return tuple(row for row in self.rows if row.failed)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        chosen, sentence = self.recommend()
        return {
            "task": self.task,
            "rows": [row.as_dict() for row in self.rows],
            "budget": str(self.budget),
            "recommended": chosen.spec,
            "recommendation": sentence,
            "test_reads": self.test_reads,
            "results": str(Path(self.out) / "results.jsonl"),
        }

    def _check_column(self, column: str) -> None:
        if column.startswith("test_"):
            raise SpecError(
                f"A front was asked for on '{column}'. Choices are made on validation only; the "
                f"test split is printed beside them. Use 'valid_{column.removeprefix('test_')}'."
            )
        known = [*NUMERIC_COLUMNS, f"valid_{self.control.metric}"]
        if column not in known:
            raise SpecError(f"There is no column '{column}'. {nearest(column, known)}")


def compare(  # noqa: PLR0913 - the options of one experiment, all but three by name
    specs: Sequence[str] = DEFAULT,
    task: str | Task = "digits",
    seeds: int | Sequence[int] = 3,
    *,
    settings: Mapping[str, object] | None = None,
    budget: Budget | str = "",
    out: str | Path = DEFAULT_FOLDER,
    progress: ShowStep | None = None,
    again: bool = False,
) -> Comparison:
    """Train every technique and the plain control with every seed, and measure them alike.

    Args:
        specs: spec strings; `plain()` is added as control.
        task: name, reference `my_file.py:task`, or a task.
        seeds: count, or list of numbers.
        settings: changes to the task's settings, for all techniques and the control.
        budget: limits that the recommendation must keep.
        out: folder of runs and results; finished, unchanged runs in it are reused.
        progress: called with a `Step` at every epoch.
        again: repeat finished runs too.

    Raises:
        WhitError: bad specs, task, settings, budget or folder; nothing has been trained then.
    """
    texts = [specs] if isinstance(specs, str) else list(specs)
    entries = distinct([parse_entry(PLAIN), *(parse_entry(text) for text in texts)])
    return run_entries(
        entries,
        task,
        seed_list(seeds),
        settings=settings or {},
        budget=Budget(budget) if isinstance(budget, str) else budget,
        out=out,
        progress=progress,
        again=again,
        control=True,
    )


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries without repetitions, in order."""
    return list({entry.text: entry for entry in entries}.values())


def run_entries(  # noqa: PLR0913 - the options of one experiment, all by name
    entries: Sequence[Entry],
    task: str | Task,
    seeds: Sequence[int],
    *,
    settings: Mapping[str, object],
    budget: Budget,
    out: str | Path,
    progress: ShowStep | None = None,
    again: bool = False,
    control: bool = True,
) -> Comparison:
    """Carry out entries with seeds and gather the rows; with `control`, the first is it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "whit run and whit compare use one process. Under torchrun call whit.execute, where "
            "only rank 0 measures."
        )
    made = find_task(task) if isinstance(task, str) else task
    planned = _planned(entries, made, seeds, settings, out)
    finished, failed = carry_out(planned, made, out, budget=budget, progress=progress, again=again)
    rows: list[Row] = []
    for entry in entries:
        runs = tuple(run for run in finished if run.planned.entry.text == entry.text)
        if entry.text in failed:
            rows.append(Row(entry.text, runs, {}, {}, label=entry.label, failed=failed[entry.text]))
        else:
            rows.append(_row(runs, rows[0] if control and rows else None))
    return Comparison(made.name, tuple(rows), budget, str(out), _test_reads(out, made.name))


def _planned(
    entries: Sequence[Entry],
    task: Task,
    seeds: Sequence[int],
    settings: Mapping[str, object],
    out: str | Path,
) -> list[Planned]:
    """Plan the runs; an error while the user's own task loads its data is said in words."""
    try:
        return plan_runs(entries, task, seeds, settings, out)
    except WhitError:
        raise
    except Exception as error:
        reason = reason_of(error, [task.name])
        if reason is None:
            raise
        raise TaskError(f"The data of '{task.name}' cannot be loaded: {reason}.") from error


def _test_reads(out: str | Path, task: str) -> int:
    from whit.measure.store import Store

    return Store(Path(out) / "results.jsonl").test_reads().get(task, 0)


def _row(runs: tuple[Finished, ...], control: Row | None) -> Row:
    metric = runs[0].columns["metric"]
    means, spreads, reasons = {}, {}, {}
    for column in (f"valid_{metric}", f"test_{metric}", *NUMERIC_COLUMNS):
        values = [run.columns[column] for run in runs]
        if any(value is None for value in values):
            failed = next(run for run in runs if run.columns[column] is None)
            reasons[column] = failed.columns["reasons"].get(column, "not measured")
            continue
        if not all(isfinite(value) for value in values):
            reasons[column] = "not a finite number for at least one seed"
            continue
        means[column] = fmean(values)
        if len(values) > 1:
            spreads[column] = stdev(values)
    entry = runs[0].planned.entry
    row = Row(entry.text, runs, means, spreads, reasons=reasons, label=entry.label)
    return row if control is None else _beside(row, control)


def _beside(row: Row, control: Row) -> Row:
    """Return the row with its ratios, verdict and notes against the control."""
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
    notes = []
    ratio = relative.get("train_macs", 1.0)
    other_settings = row.runs[0].planned.settings != control.runs[0].planned.settings
    if other_settings or abs(ratio - 1) > UNEQUAL_COMPUTE:
        why = "other settings than the control; " if other_settings else ""
        notes.append(f"unequal compute: {why}{ratio:.2f} times the control's training MACs")
    return replace(row, relative=relative, verdict=verdict, notes=tuple(notes))
