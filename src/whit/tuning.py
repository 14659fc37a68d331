"""Give every technique the same small grid of learning rates, and choose on validation.

Settings that were tuned for the control favour the control. A trial is a whole training run with
the first seed that is not measured: the test split stays sealed. All trials but the one that is
chosen (which is then the first seed's run, and not trained twice) are charged to the technique.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite

from whit.atomic_files import write_atomically
from whit.core.budget import Budget
from whit.core.checkpoints import remove_checkpoints
from whit.core.execution import Conditions, train
from whit.core.task import Task
from whit.runs import Planned, Tell, alone_in, read_finished
from whit.spec_strings import Entry

RATE_FACTORS = (1.0, 1 / 3, 3.0)  # the task's own rate first: it wins ties
TRIAL_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """One trial of a learning rate.

    Attributes:
        learning_rate: that was tried.
        valid: quality on the validation split after training.
        train_macs: multiply-accumulates of the training.
        train_seconds: its wall time.
    """

    learning_rate: float
    valid: float
    train_macs: int
    train_seconds: float


@dataclass(frozen=True)
class Tuned:
    """How one entry's learning rate was chosen.

    Attributes:
        learning_rate: the chosen one.
        trials: all that could be carried out.
        failed: reasons of the others, by learning rate.
    """

    learning_rate: float
    trials: tuple[Trial, ...]
    failed: dict[float, str]

    @property
    def train_macs(self) -> int:
        """Cost of the trials that were not chosen, multiply-accumulates."""
        return sum(t.train_macs for t in self.trials if t.learning_rate != self.learning_rate)

    @property
    def train_seconds(self) -> float:
        """Wall time of the trials that were not chosen."""
        return sum(t.train_seconds for t in self.trials if t.learning_rate != self.learning_rate)

    def note(self) -> str:
        """Return in words what was tried and what it cost."""
        tried = ", ".join(f"{t.learning_rate:g}: {t.valid:.4f}" for t in self.trials)
        broken = "".join(f"; {rate:g} failed ({why})" for rate, why in self.failed.items())
        return (
            f"tuned: learning_rate={self.learning_rate:g}, by validation of the first seed "
            f"({tried}{broken}); the training cost includes {self.train_macs:.3g} MACs and "
            f"{self.train_seconds:.1f} s of the other trials"
        )


def tuning_entries(entry: Entry, rate: float) -> list[Entry]:
    """Return the entry with every learning rate of the grid; itself alone if it names its own.

    Args:
        entry: technique and its settings.
        rate: that it would be trained with.
    """
    if "learning_rate" in entry.settings_changes:
        return [entry]
    return [with_rate(entry, float(f"{factor * rate:.3g}")) for factor in RATE_FACTORS]


def with_rate(entry: Entry, rate: float) -> Entry:
    """Return the entry with this learning rate among its settings; its label stays."""
    changes = {**entry.settings_changes, "learning_rate": rate}
    written = ", ".join(f"{name}={value!r}" for name, value in changes.items())
    return replace(entry, settings_changes=changes, text=f"{entry.technique.spec} @ {written}")


def choose(planned: Sequence[Planned], outcomes: Sequence[Trial | str]) -> Tuned | None:
    """Return the best trial of one entry by validation; None when all failed.

    Args:
        planned: the trials, in the order of the grid.
        outcomes: their results, or reasons.
    """
    trials = tuple(found for found in outcomes if isinstance(found, Trial))
    failed = {
        plan.settings.learning_rate: found
        for plan, found in zip(planned, outcomes, strict=True)
        if isinstance(found, str)
    }
    if not trials:
        return None
    best = max(trials, key=lambda trial: trial.valid if isfinite(trial.valid) else -inf)
    return Tuned(best.learning_rate, trials, failed)


def carry_out_trial(plan: Planned, task: Task, budget: Budget, tell: Tell) -> Trial:
    """Train one run and look at its validation quality; the test split is not read.

    The checkpoints stay, so that the run, if it is chosen, goes on to its end at once.
    """
    found = read_trial(plan)
    if found is not None:
        tell("reused", None)
        return found
    with alone_in(plan.folder, lambda: tell("waiting", None)):
        found = read_trial(plan)  # another process may have made it since the first look
        if found is not None:
            tell("reused", None)
            return found
        tell("started", None)
        conditions = Conditions(
            budget=budget,
            seed=plan.seed,
            out=plan.folder,
            progress=lambda fit: tell("training", fit),
        )
        trained = train(task, plan.entry.technique, plan.settings, conditions)
        charge = trained.run.meter.charge()
        trial = Trial(
            plan.settings.learning_rate,
            trained.run.evaluate(trained.model),
            charge.train_macs,
            charge.train_seconds,
        )
        text = json.dumps(asdict(trial))
        write_atomically(plan.folder / TRIAL_FILE, lambda path: path.write_text(text))
    tell("finished", None)
    return trial


def read_trial(plan: Planned) -> Trial | None:
    """Return the trial of this run that was made before, or what a finished run says of it."""
    try:
        return Trial(**json.loads((plan.folder / TRIAL_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        pass
    run = read_finished(plan)
    if run is None:
        return None
    card = run.columns
    rate = plan.settings.learning_rate
    valid = card[f"valid_{card['metric']}"]
    return Trial(rate, valid, card["train_macs"], card["train_seconds"])


def forget_checkpoints(planned: Sequence[Planned]) -> None:
    """Remove the checkpoints of trials that were not chosen; what they showed is kept."""
    for plan in planned:
        remove_checkpoints(plan.folder)
