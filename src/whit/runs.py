"""Plan many runs, carry them out, reuse the finished ones, and time their packed files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.core.budget import Budget
from whit.core.device import Device
from whit.core.execution import execute, identity_of
from whit.core.fit import Progress
from whit.core.settings import Settings
from whit.core.task import Task
from whit.errors import SettingsError, WhitError
from whit.measure.latency import measure_latencies
from whit.measure.scorecard import Scorecard
from whit.measure.store import Store
from whit.reporting.failures import reason_of
from whit.spec_strings import Entry

DEFAULT_FOLDER = "whit-runs"
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Planned:
    """One run to carry out.

    Attributes:
        entry: technique and its own settings.
        settings: of the run, all changes applied.
        seed: of the run.
        identity: changes whenever the result could.
        folder: where the result is or will be.
    """

    entry: Entry
    settings: Settings
    seed: int
    identity: str
    folder: Path


@dataclass(frozen=True)
class Finished:
    """One finished run.

    Attributes:
        planned: what was asked.
        row: as stored in `result.json`; `row["scorecard"]` holds the columns.
        reused: whether it was found finished and unchanged.
        test_correct: uint8 [test samples], or None.
    """

    planned: Planned
    row: dict[str, Any]
    reused: bool
    test_correct: NDArray[np.uint8] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        state = "reused" if self.reused else "new"
        return f"Finished({self.planned.entry.label!r}, seed={self.planned.seed}, {state})"

    @property
    def columns(self) -> dict[str, Any]:
        """The scorecard's columns by name."""
        scorecard: dict[str, Any] = self.row["scorecard"]
        return scorecard

    @property
    def packed_path(self) -> Path | None:
        """The packed file, None when the model could not be packed."""
        path = self.planned.folder / "model.whit"
        return path if path.exists() and self.columns["stored_bytes"] is not None else None


@dataclass(frozen=True)
class Step:
    """How far a set of runs is, for progress displays.

    Attributes:
        run: number of the current run, from 1.
        runs: how many there are.
        spec: of the current run, as the user wrote it.
        seed: of the current run.
        fit: the run's progress in training; None when it begins and when it has ended.
        state: "started", "training", "finished", "reused" or "failed".
    """

    run: int
    runs: int
    spec: str
    seed: int
    fit: Progress | None
    state: str


ShowStep = Callable[[Step], None]


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds from a count (0, 1, ...) or a list.

    Raises:
        SettingsError: none, a negative one, one twice, or something else than whole numbers.
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if not 1 <= seeds <= MOST_SEEDS:
            raise SettingsError(f"{seeds} seeds were asked for; give 1 to {MOST_SEEDS:,}.")
        return list(range(seeds))
    if not isinstance(seeds, (list, tuple, range)):
        raise SettingsError(f"Seeds were given as {seeds!r}; give a count, or a list of numbers.")
    numbers = list(seeds)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in numbers)
    if not numbers or not whole or len(set(numbers)) != len(numbers):
        raise SettingsError(
            f"The seeds {numbers} were given; expected different whole numbers, 0 or more, at "
            "least one."
        )
    return numbers


def plan_runs(
    entries: Sequence[Entry],
    task: Task,
    seeds: Sequence[int],
    changes: Mapping[str, object],
    out: str | Path,
) -> list[Planned]:
    """Return every entry with every seed, each with its identity and folder.

    Raises:
        SettingsError: a setting is unknown or out of range.
    """
    checksum = task.checked_data().checksum()
    base = task.settings.changed(**changes)
    planned = []
    for entry in entries:
        settings = base.changed(**entry.settings_changes)
        for seed in seeds:
            identity = identity_of(task, entry.technique, settings, seed, Device(), checksum)
            folder = Path(out) / folder_name(task.name) / identity
            planned.append(Planned(entry, settings, seed, identity, folder))
    return planned


def folder_name(task: str) -> str:
    """Return a task's name as the name of a folder."""
    return re.sub(r"[^\w.=-]+", "_", task).strip("_.") or "task"


def carry_out(
    planned: Sequence[Planned],
    task: Task,
    out: str | Path,
    *,
    budget: Budget,
    progress: ShowStep | None = None,
    again: bool = False,
) -> tuple[list[Finished], dict[str, str]]:
    """Run what is not finished, time all packed files alone, and store one line per run.

    An interrupted call stores what it finished; repeated, it goes on from there. The first entry
    must work: it is the control, or all there is. Another one that cannot be carried out is left
    out, with its reason.

    Args:
        planned: the runs.
        task: of all of them.
        out: folder of the store `results.jsonl`.
        budget: limits for techniques that search.
        progress: called at every epoch and when a run starts and ends.
        again: repeat finished runs too.

    Returns:
        The finished runs, and the reasons of entries that failed by the entry's text.

    Raises:
        WhitError: why the first entry cannot be carried out.
    """
    store = Store(Path(out) / "results.jsonl")
    store.rows()  # what cannot be read is said before anything is trained
    finished: list[Finished] = []
    failed: dict[str, str] = {}
    try:
        for number, plan in enumerate(planned, 1):
            name = plan.entry.text
            if name in failed:
                continue
            tell = _teller(progress, number, planned)
            try:
                finished.append(_one(plan, task, budget, tell, again))
            except Exception as error:
                reason = reason_of(error, [name, task.name])
                first = name == planned[0].entry.text
                if reason is None or (first and isinstance(error, WhitError)):
                    raise
                if first:
                    raise WhitError(f"'{plan.entry.label}' failed: {reason}.") from error
                earlier = any(run.planned.entry.text == name for run in finished)
                failed[name] = f"seed {plan.seed}: {reason}" if earlier else reason
                tell("failed", None)
        finished = _timed(finished, task)
    finally:
        _remember(finished, store)
    return finished, failed


def _teller(
    progress: ShowStep | None, number: int, planned: Sequence[Planned]
) -> Callable[[str, Progress | None], None]:
    def tell(state: str, fit: Progress | None = None) -> None:
        if progress is not None:
            plan = planned[number - 1]
            progress(Step(number, len(planned), plan.entry.label, plan.seed, fit, state))

    return tell


def _one(
    plan: Planned,
    task: Task,
    budget: Budget,
    tell: Callable[[str, Progress | None], None],
    again: bool,
) -> Finished:
    found = None if again else read_finished(plan)
    if found is not None:
        tell("reused", None)
        return found
    tell("started", None)
    if again:
        for old in plan.folder.glob("*"):
            old.unlink(missing_ok=True)
    execute(
        task,
        plan.entry.technique,
        plan.settings,
        budget=budget,
        seed=plan.seed,
        out=plan.folder,
        progress=lambda fit: tell("training", fit),
    )
    done = read_finished(plan)
    if done is None:
        raise WhitError(
            f"The run '{plan.entry.text}' with seed {plan.seed} left no result in '{plan.folder}'. "
            "Under torchrun only rank 0 measures: use one process for whit run and whit compare."
        )
    tell("finished", None)
    return Finished(plan, done.row, False, done.test_correct)


def read_finished(plan: Planned) -> Finished | None:
    """Return the finished run in the planned folder, None when there is none or it is damaged."""
    try:
        row = json.loads((plan.folder / "result.json").read_text())
        Scorecard.from_dict(row["scorecard"])
        stored = plan.folder / "test_correct.npy"
        correct = np.load(stored, allow_pickle=False) if stored.exists() else None
    except (OSError, ValueError, KeyError, TypeError, WhitError):
        return None
    row.pop("shapes", None)
    return Finished(plan, row, True, correct)


def _timed(finished: list[Finished], task: Task) -> list[Finished]:
    """Fill in the latency of all packed models, timed in turns after the last training."""
    from whit.runtime import load

    paths = {run.planned.identity: run.packed_path for run in finished}
    programs = {name: load(path) for name, path in paths.items() if path is not None}
    raw = task.load().valid.inputs[0][:1].numpy()
    examples = {name: _fitting(raw, program.input.shape) for name, program in programs.items()}
    latencies = measure_latencies(programs, examples)
    timed = []
    for run in finished:
        latency = latencies.get(run.planned.identity)
        row = run.row
        if latency is not None:
            card = Scorecard.from_dict(run.columns).with_latency(latency)
            row = {**row, "scorecard": card.as_dict()}
        timed.append(Finished(run.planned, row, run.reused, run.test_correct))
    return timed


def _fitting(raw: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    # A technique may have changed the inputs (spike trains); the time does not depend on the
    # values.
    return raw if raw.shape[1:] == tuple(shape) else np.zeros((1, *shape), np.float32)


def _has_latency(row: Mapping[str, Any]) -> bool:
    return (row.get("scorecard") or {}).get("latency_ms") is not None


def _remember(finished: Sequence[Finished], store: Store) -> None:
    # A run that was interrupted before its file was timed gets a second, complete line.
    known = {(row.get("identity"), _has_latency(row)) for row in store.rows()}
    for run in finished:
        if run.reused and (run.planned.identity, _has_latency(run.row)) in known:
            continue
        store.append(
            {
                **run.row,
                "identity": run.planned.identity,
                "folder": str(run.planned.folder),
                "settings_changes": run.planned.entry.settings_changes,
            }
        )
