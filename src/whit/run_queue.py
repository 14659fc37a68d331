"""Carry out many planned runs, here or in worker processes, time their files, and store them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whit.core.budget import Budget
from whit.core.fit import Progress
from whit.core.task import Task
from whit.errors import SettingsError, WhitError
from whit.measure.latency import measure_latencies
from whit.measure.scorecard import Scorecard
from whit.measure.store import Store
from whit.packing.tracing import baked_copy
from whit.reporting.failures import reason_of
from whit.result_folder import load_result
from whit.run_workers import Workers
from whit.runs import Finished, Planned, ShowStep, Step, Tell, carry_out_run, read_finished
from whit.tuning import Trial, carry_out_trial, read_trial

MOST_JOBS = 256


@dataclass(frozen=True)
class Means:
    """How a set of runs is carried out.

    Attributes:
        budget: limits for techniques that search.
        progress: called at every epoch and when a run starts and ends.
        again: repeat finished runs too.
        jobs: worker processes, >= 1; 1 is this process.
    """

    budget: Budget
    progress: ShowStep | None = None
    again: bool = False
    jobs: int = 1

    def __post_init__(self) -> None:
        """Check the number of jobs."""
        whole = isinstance(self.jobs, int) and not isinstance(self.jobs, bool)
        if not whole or not 1 <= self.jobs <= MOST_JOBS:
            raise SettingsError(
                f"jobs was given as {self.jobs!r}; expected a whole number from 1 to {MOST_JOBS}: "
                "how many runs are carried out at the same time."
            )


def carry_out(
    planned: Sequence[Planned], task: Task, out: str | Path, means: Means
) -> tuple[list[Finished], dict[str, str]]:
    """Run what is not finished, time all packed files alone, and store one line per run.

    An interrupted call stores what it finished; repeated, it goes on from there. The first entry
    must work: it is the control, or all there is. Another one that cannot be carried out is left
    out, with its reason.

    Args:
        planned: the runs.
        task: of all of them.
        out: folder of the store `results.jsonl`.
        means: jobs, budget, progress.

    Returns:
        The finished runs in the planned order, and the reasons of entries that failed by the
        entry's text.

    Raises:
        WhitError: why the first entry cannot be carried out.
    """
    store = Store(Path(out) / "results.jsonl")
    store.rows()  # what cannot be read is said before anything is trained
    queue = _Queue(planned, task, means)
    finished: list[Finished] = []
    try:
        try:
            queue.work()
        finally:
            finished = [queue.finished[n] for n in sorted(queue.finished)]
        finished = _timed(finished, task)
    finally:
        _remember(finished, store)
    return finished, queue.failed


def carry_out_trials(planned: Sequence[Planned], task: Task, means: Means) -> list[Trial | str]:
    """Train what `tune` tries, without measuring; a trial that was made before is reused.

    Returns:
        For each planned run its trial, or why it could not be carried out.
    """
    queue = _Queue(planned, task, means, trials=True)
    queue.work()
    return [queue.trials.get(n) or queue.reasons[n] for n in range(len(planned))]


class _Queue:
    """Planned runs on their way: what has ended, and how."""

    def __init__(
        self, planned: Sequence[Planned], task: Task, means: Means, trials: bool = False
    ) -> None:
        self.planned = planned
        self.task = task
        self.means = means
        self.trial_kind = trials
        self.finished: dict[int, Finished] = {}
        self.trials: dict[int, Trial] = {}
        self.reasons: dict[int, str] = {}
        self.failed: dict[str, str] = {}
        self.ended = 0

    def work(self) -> None:
        if self.means.jobs == 1:
            for number in range(len(self.planned)):
                if self.wanted(number):
                    self._here(number)
            return
        open_runs = [n for n in range(len(self.planned)) if not self._found(n)]
        with Workers(min(self.means.jobs, len(open_runs)), self.task, self.means.budget) as workers:
            workers.carry_out(
                [(n, self.planned[n], self.trial_kind, self.means.again) for n in open_runs],
                wanted=self.wanted,
                tell=lambda number, state, fit: self._teller(number)(state, fit),
                done=self._fetch,
                refused=self._failed,
            )

    def wanted(self, number: int) -> bool:
        """Say whether a run is still to be made: not when its entry has failed already."""
        return self.trial_kind or self.planned[number].entry.text not in self.failed

    def _found(self, number: int) -> bool:
        """Take a run that is finished already; workers get the others only."""
        if self.means.again and not self.trial_kind:
            return False
        plan = self.planned[number]
        if self.trial_kind:
            trial = read_trial(plan)
            if trial is None:
                return False
            self.trials[number] = trial
        else:
            run = read_finished(plan)
            if run is None:
                return False
            self.finished[number] = run
        self._teller(number)("reused", None)
        return True

    def _here(self, number: int) -> None:
        plan, means, tell = self.planned[number], self.means, self._teller(number)
        try:
            if self.trial_kind:
                self.trials[number] = carry_out_trial(plan, self.task, means.budget, tell)
            else:
                self.finished[number] = carry_out_run(
                    plan, self.task, means.budget, tell, means.again
                )
        except Exception as error:
            reason = reason_of(error, [plan.entry.text, self.task.name])
            if reason is None:
                raise
            self._failed(number, reason, isinstance(error, WhitError))

    def _fetch(self, number: int, reused: bool) -> None:
        """Read what a worker left in the run's folder."""
        plan = self.planned[number]
        trial = read_trial(plan) if self.trial_kind else None
        run = None if self.trial_kind else read_finished(plan)
        if trial is not None:
            self.trials[number] = trial
        elif run is not None:
            self.finished[number] = Finished(plan, run.row, reused, run.test_correct)
        else:
            raise WhitError(
                f"A worker process carried out '{plan.entry.label}' with seed {plan.seed}, and "
                f"'{plan.folder}' holds no result. Was the folder removed meanwhile? Repeat the "
                "command."
            )
        self._teller(number)("reused" if reused else "finished", None)

    def _failed(self, number: int, reason: str, stated: bool) -> None:
        """Take a refusal; one of the control, or of all there is, ends everything."""
        plan = self.planned[number]
        name = plan.entry.text
        self.reasons[number] = reason
        if not self.trial_kind:
            if name == self.planned[0].entry.text:
                said = f"'{plan.entry.label}' failed: {reason.rstrip('.')}."
                raise WhitError(reason if stated else said)
            earlier = any(run.planned.entry.text == name for run in self.finished.values())
            self.failed[name] = f"seed {plan.seed}: {reason}" if earlier else reason
        self._teller(number)("failed", None)

    def _teller(self, number: int) -> Tell:
        def tell(state: str, fit: Progress | None = None) -> None:
            if state in ("finished", "reused", "failed"):
                self.ended += 1
            if self.means.progress is not None:
                plan, runs = self.planned[number], len(self.planned)
                label = plan.entry.label
                self.means.progress(
                    Step(number + 1, runs, label, plan.seed, fit, state, self.ended)
                )

        return tell


def _timed(finished: list[Finished], task: Task) -> list[Finished]:
    """Fill in the latency of all packed models, timed in turns after the last training.

    The trained model itself, in torch, is timed in the same turns.
    """
    from whit.runtime import load

    paths = {run.planned.identity: run.packed_path for run in finished}
    programs = {name: load(path) for name, path in paths.items() if path is not None}
    raw = task.load().valid.inputs[0][:64].numpy()  # a route takes them in turn
    examples = {name: _fitting(raw, program.input.shape) for name, program in programs.items()}
    modules, untimed = _torch_modules(finished, programs)
    latencies = measure_latencies(programs, examples, modules=modules)
    timed = []
    for run in finished:
        latency = latencies.get(run.planned.identity)
        row = run.row
        if latency is not None:
            no_torch = untimed.get(run.planned.identity, "")
            card = Scorecard.from_dict(run.columns).with_latency(latency, no_torch)
            row = {**row, "scorecard": card.as_dict()}
        timed.append(Finished(run.planned, row, run.reused, run.test_correct))
    return timed


def _torch_modules(
    finished: Sequence[Finished], names: Collection[str]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Rebuild the trained models of some runs for inference; for the others, say why not."""
    modules, reasons = {}, {}
    for run in finished:
        plan = run.planned
        if plan.identity not in names:
            continue
        try:
            modules[plan.identity] = baked_copy(load_result(plan.folder).model)
        except Exception as error:  # code of a user; a time in torch is not worth the comparison
            said = " ".join(str(error).split())
            said = said if isinstance(error, WhitError) else f"{type(error).__name__}: {said}"
            reasons[plan.identity] = f"the model could not be rebuilt in torch: {said}"
    return modules, reasons


def _fitting(raw: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    # A technique may have changed the inputs (spike trains); without a route the time does not
    # depend on the values.
    return raw if raw.shape[1:] == tuple(shape) else np.zeros((1, *shape), np.float32)


def _has_latency(row: Mapping[str, Any]) -> bool:
    return (row.get("scorecard") or {}).get("latency_ms") is not None


def _remember(finished: Sequence[Finished], store: Store) -> None:
    # A run that was interrupted before its file was timed gets a second, complete line.
    for run in finished:
        # Asked each time: a process that waited for this run may have stored it meanwhile.
        lines = [row for row in store.rows() if row.get("identity") == run.planned.identity]
        timed = any(_has_latency(row) for row in lines)
        if run.reused and lines and (timed or not _has_latency(run.row)):
            continue
        # Curves and notes stay in the run's folder: lines of the store are to be read by eye.
        row = {key: value for key, value in run.row.items() if key not in ("history", "notes")}
        store.append(
            {
                **row,
                "identity": run.planned.identity,
                "folder": str(run.planned.folder),
                "settings_changes": run.planned.entry.settings_changes,
            }
        )
