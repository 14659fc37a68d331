"""Compare techniques with the plain control under one protocol, and choose on validation alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whit.core.budget import Budget
from whit.core.options import nearest
from whit.core.task import Task
from whit.core.technique import PLAIN
from whit.errors import SettingsError, SpecError, TaskError, WhitError
from whit.measure.columns import NUMERIC_COLUMNS
from whit.reporting.failures import reason_of
from whit.reporting.recommendation import TOLERANCE, check_tolerance, recommendation
from whit.rows import Row, rows_of
from whit.run_queue import Means, carry_out, carry_out_trials
from whit.runs import DEFAULT_FOLDER, Planned, ShowStep, plan_runs, seed_list
from whit.spec_strings import Entry, parse_entry
from whit.spec_strings import task as find_task
from whit.tuning import Tuned, choose, forget_checkpoints, tuning_entries, with_rate

DEFAULT = (
    "binarized_network()",
    "one_cycle_pruning(sparsity=0.9)",
    "magnitude_pruning()",
    "distillation(student_width=0.25)",
    "binarized_network() + one_cycle_pruning(sparsity=0.5)",
)
FRONT_COSTS = ("stored_bytes", "macs", "latency_ms", "energy_nj")


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
        tuned: how learning rates were chosen, by the text of the entry.
    """

    task: str
    rows: tuple[Row, ...]
    budget: Budget = field(default_factory=Budget)
    out: str = DEFAULT_FOLDER
    test_reads: int = 0
    tolerance: float = TOLERANCE
    tuned: Mapping[str, Tuned] = field(default_factory=dict)

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

    def fronts(self) -> dict[str, list[str]]:
        """Return the labels on the front of validation quality for each kind of cost."""
        quality = f"valid_{self.control.metric}"
        return {cost: [row.label for row in self.pareto(quality, cost)] for cost in FRONT_COSTS}

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
            "fronts": self.fronts(),
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
    jobs: int = 1,
    tune: bool = False,
    second_controls: bool = False,
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
        jobs: runs that are carried out at the same time, each in a process of its own; the results
            are those of one job. 1 is this process.
        tune: try three learning rates for each technique and for the control (the task's own, a
            third of it, three times it) on the validation split with the first seed, and charge it.
        second_controls: also train the control with the settings of each technique that has its
            own (`@ epochs=30`), and judge it against that.

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
        jobs=jobs,
        tune=tune,
        second_controls=second_controls,
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
    jobs: int = 1,
    tune: bool = False,
    second_controls: bool = False,
) -> Comparison:
    """Carry out entries with seeds and gather the rows; with `control`, the first is it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "whit run and whit compare use one process. Under torchrun call whit.execute, where "
            "only rank 0 measures."
        )
    means = Means(budget, progress, again, jobs)
    made = find_task(task) if isinstance(task, str) else task
    if second_controls:
        entries = distinct([*entries, *_second_controls(entries)])
    tuned: dict[str, Tuned] = {}
    if tune:
        entries, tuned = _tuned(entries, made, seeds[0], settings, out, means)
    planned = _planned(entries, made, seeds, settings, out)
    finished, failed = carry_out(planned, made, out, means)
    rows = rows_of(entries, finished, failed, control=control, tuned=tuned)
    reads = test_reads(out, made.name)
    return Comparison(made.name, rows, budget, str(out), reads, tuned=tuned)


def _second_controls(entries: Sequence[Entry]) -> list[Entry]:
    """Return the plain control with the settings of every entry that has its own."""
    controls = []
    for entry in entries:
        if entry.settings_changes:
            written = ", ".join(f"{k}={v!r}" for k, v in entry.settings_changes.items())
            controls.append(parse_entry(f"{PLAIN} @ {written}"))
    return controls


def _tuned(
    entries: Sequence[Entry],
    task: Task,
    seed: int,
    settings: Mapping[str, object],
    out: str | Path,
    means: Means,
) -> tuple[list[Entry], dict[str, Tuned]]:
    """Return the entries with the learning rates that were best on validation, and how."""
    rate = task.settings.changed(**settings).learning_rate
    grids = [tuning_entries(entry, rate) for entry in entries]
    planned = _planned(
        [e for grid in grids if len(grid) > 1 for e in grid], task, [seed], settings, out
    )
    outcomes = carry_out_trials(planned, task, means)
    chosen: list[Entry] = []
    tuned: dict[str, Tuned] = {}
    start = 0
    for entry, grid in zip(entries, grids, strict=True):
        if len(grid) == 1:
            chosen.append(entry)
            continue
        plans = planned[start : start + len(grid)]
        found = choose(plans, outcomes[start : start + len(grid)])
        start += len(grid)
        # When no rate works, the entry's own run will say why.
        best = entry if found is None else with_rate(entry, found.learning_rate)
        if found is not None:
            tuned[best.text] = found
        forget_checkpoints([plan for plan in plans if plan.entry.text != best.text])
        chosen.append(best)
    return distinct(chosen), tuned


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


def test_reads(out: str | Path, task: str) -> int:
    """Return how often the test split of a task was read, by the store in this folder."""
    from whit.measure.store import Store

    return Store(Path(out) / "results.jsonl").test_reads().get(task, 0)
