"""Plan many runs, carry one out alone, and reuse the finished ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from whit.atomic_files import alone_with, remove_leftovers, require_writable
from whit.core.budget import Budget
from whit.core.checkpoints import remove_checkpoints
from whit.core.device import Device
from whit.core.execution import execute, identity_of
from whit.core.fit import Progress
from whit.core.settings import Settings
from whit.core.task import Task
from whit.errors import SettingsError, WhitError
from whit.measure.scorecard import Scorecard
from whit.runtime import load
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
        task: reference of the task.
        changes: of the task's own settings, by name.
    """

    entry: Entry
    settings: Settings
    seed: int
    identity: str
    folder: Path
    task: str = ""
    changes: Mapping[str, object] = field(default_factory=dict)


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
        run: number of the run that moved, from 1.
        runs: how many there are.
        spec: of this run, as the user wrote it.
        seed: of this run.
        fit: the run's progress in training; None when it begins and when it has ended.
        state: "waiting" (for another process that carries it out), "started", "training",
            "finished", "reused" or "failed"; the trials of `tune` likewise.
        ended: runs that have ended so far, whichever way.
    """

    run: int
    runs: int
    spec: str
    seed: int
    fit: Progress | None
    state: str
    ended: int = 0


ShowStep = Callable[[Step], None]
Tell = Callable[[str, Progress | None], None]


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
        all_changes = {**changes, **entry.settings_changes}
        for seed in seeds:
            identity = identity_of(task, entry.technique, settings, seed, Device(), checksum)
            folder = task_folder(out, task.name) / identity
            plan = Planned(entry, settings, seed, identity, folder, task.name, all_changes)
            planned.append(plan)
    return planned


def task_folder(out: str | Path, task: str) -> Path:
    """Return the folder of all runs of a task."""
    return Path(out) / folder_name(task)


def folder_name(task: str) -> str:
    """Return a task's name as the name of a folder."""
    return re.sub(r"[^\w.=-]+", "_", task).strip("_.") or "task"


def carry_out_run(plan: Planned, task: Task, budget: Budget, tell: Tell, again: bool) -> Finished:
    """Return the finished run, carried out unless it was before.

    Another process that carries out the same run is waited for, and its result reused.

    Args:
        plan: the run.
        task: of the run.
        budget: limits for techniques that search.
        tell: called with a state and the progress in training.
        again: carry it out though it is finished.

    Raises:
        WhitError: the run cannot be carried out, or its folder holds another run.
    """
    found = None if again else read_finished(plan)
    if found is not None:
        # A process that was killed between its result and its cleaning up leaves these.
        remove_checkpoints(plan.folder)
        remove_leftovers(plan.folder)
        tell("reused", None)
        return found
    with alone_in(plan.folder, lambda: tell("waiting", None)):
        # Another process may have finished it since the first look.
        found = None if again else read_finished(plan)
        if found is not None:
            tell("reused", None)
            return found
        tell("started", None)
        if again:
            for old in plan.folder.glob("*"):
                if old.name != LOCK:
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


LOCK = "lock"


@contextmanager
def alone_in(folder: Path, wait: Callable[[], None]) -> Iterator[bool]:
    """Keep other processes of this machine out of a run's folder while the block runs.

    Args:
        folder: made if need be.
        wait: called when another process is in the folder, before waiting for it.

    Yields:
        Whether another process was waited for.
    """
    require_writable(folder)
    with alone_with(folder / LOCK, wait) as waited:
        yield waited


def read_finished(plan: Planned) -> Finished | None:
    """Return the finished run in the planned folder, None when there is none or it is damaged.

    Raises:
        WhitError: the folder holds the result of another run, as after copying folders by hand.
    """
    row = read_row(plan.folder)
    if row is None:
        return None
    mine = (plan.task, plan.entry.technique.spec, plan.seed, plan.settings.as_dict())
    found = tuple(row.get(key) for key in ("task", "spec", "seed", "settings"))
    if plan.task and found != mine:
        raise WhitError(
            f"The folder '{plan.folder}' holds the result of another run ('{found[1]}' on "
            f"'{found[0]}' with seed {found[2]}), and '{mine[1]}' on '{mine[0]}' with seed "
            f"{mine[2]} was to be written there. Remove or rename it, or use another --out."
        )
    if not _files_are_whole(plan.folder, row):
        return None
    try:
        stored = plan.folder / "test_correct.npy"
        correct = np.load(stored, allow_pickle=False) if stored.exists() else None
    except (OSError, ValueError, EOFError):
        return None
    return Finished(plan, row, True, correct)


def _files_are_whole(folder: Path, row: Mapping[str, Any]) -> bool:
    """Say whether the model's files can be read; a damaged run is carried out again."""
    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
            tensors.keys()
        if row["scorecard"]["stored_bytes"] is not None:
            load(folder / "model.whit")
    except (OSError, SafetensorError, WhitError):
        return False
    return True


def read_row(folder: Path) -> dict[str, Any] | None:
    """Return what `result.json` of a finished run holds; None when there is none that is whole."""
    try:
        row: dict[str, Any] = json.loads((folder / "result.json").read_text())
        Scorecard.from_dict(row["scorecard"])
    except (OSError, ValueError, KeyError, TypeError, WhitError):
        return None
    row.pop("shapes", None)
    return row
