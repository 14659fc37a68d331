"""`check`: what each technique would do to a model, found before any real training.

Each technique is rehearsed (`rehearsal`): its own slots run on a few samples, so teachers, masks
and students of another width really come about. The finished model is packed as a real one would
be; its bytes are an estimate, since the values of trained weights decide the storage formats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch

from whit.activation_calls import ActivationCall, watched_forward
from whit.check_facts import DataFacts, ModelFacts, PackedEstimate, estimated
from whit.comparison import DEFAULT, distinct
from whit.core.data import Data
from whit.core.settings import Settings
from whit.core.task import Task
from whit.core.technique import PLAIN, Technique, keep, train_once
from whit.errors import TaskError, WhitError
from whit.layer_changes import Change, Differences, Skipped, Stages, differences
from whit.model_layers import layers_of
from whit.rehearsal import Rehearsal, cut, rehearse
from whit.reporting.failures import reason_of
from whit.spec_strings import Entry, parse_entry
from whit.spec_strings import task as find_task

Made = TypeVar("Made")


@dataclass(frozen=True)
class Checked:
    """What one technique would do.

    Attributes:
        spec: canonical.
        label: as written.
        refused: why it cannot be carried out; all that follows is empty then.
        acts: moments at which it acts, such as "before training".
        found: changed and skipped layers.
        estimate: of the packed file, None when it cannot be packed.
        cannot_pack: why not.
        train_macs: estimated multiply-accumulates of the whole training.
        train_ratio: the same over the control's.
        seconds: that the rehearsal took.
    """

    spec: str
    label: str
    refused: str = ""
    acts: tuple[str, ...] = ()
    found: Differences = field(default_factory=Differences)
    estimate: PackedEstimate | None = None
    cannot_pack: str = ""
    train_macs: int = 0
    train_ratio: float = 0.0
    seconds: float = 0.0

    @property
    def changed(self) -> tuple[Change, ...]:
        """Layers that it changes."""
        return self.found.changed

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that it leaves alone beside them."""
        return self.found.skipped

    def bytes_ratio(self, control: Checked) -> float | None:
        """Return the estimated bytes over the control's, None where one is unknown."""
        if self.estimate is None or control.estimate is None:
            return None
        return self.estimate.stored_bytes / control.estimate.stored_bytes

    def as_dict(self, control: Checked) -> dict[str, Any]:
        """Return plain values; what does not apply is None."""
        found = asdict(self)
        return {
            **{name: value for name, value in found.items() if name != "found"},
            **found["found"],
            "refused": self.refused or None,
            "cannot_pack": self.cannot_pack or None,
            "bytes_ratio": self.bytes_ratio(control),
        }


@dataclass(frozen=True)
class Check:
    """The control and techniques, checked without training.

    Attributes:
        task: its name.
        model: the control model.
        data: of the task.
        settings: of the real training.
        rows: the control first.
        steps: optimiser steps of the control's rehearsal.
        samples: training samples of the rehearsal.
        seconds: that all took.
    """

    task: str
    model: ModelFacts
    data: DataFacts
    settings: Settings
    rows: tuple[Checked, ...]
    steps: int
    samples: int
    seconds: float

    def __repr__(self) -> str:
        labels = ", ".join(row.label for row in self.rows)
        return f"Check({self.task!r}, {len(self.rows)} rows: {labels}; print it for the text)"

    def __str__(self) -> str:
        from whit.reporting.check_view import check_text

        return check_text(self)

    @property
    def control(self) -> Checked:
        """The plain control."""
        return self.rows[0]

    @property
    def refused(self) -> tuple[Checked, ...]:
        """Techniques that cannot be carried out on this task."""
        return tuple(row for row in self.rows if row.refused)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        rows = [row.as_dict(self.control) for row in self.rows]
        return {**asdict(self), "settings": self.settings.as_dict(), "rows": rows}


def check(
    specs: Sequence[str] = DEFAULT,
    task: str | Task = "digits",
    *,
    progress: Callable[[str], None] | None = None,
) -> Check:
    """Find out what techniques would do to a task's control model, before any training.

    Args:
        specs: spec strings; settings after `@` count in the training's cost.
        task: name, reference `my_file.py:task`, or a task.
        progress: called with the label of each technique before its rehearsal.

    Raises:
        WhitError: bad specs; or the task's data or control model do not work.
    """
    started = time.perf_counter()
    texts = [specs] if isinstance(specs, str) else list(specs)
    entries = distinct([parse_entry(PLAIN), *(parse_entry(text) for text in texts)])
    made = find_task(task) if isinstance(task, str) else task
    data, test_samples = _in_words(
        f"The data of '{made.name}' cannot be loaded", made, lambda: _sealed(made)
    )
    checker = _in_words(
        f"The control model of '{made.name}' does not work", made, lambda: _Checker(made, data)
    )
    rows: list[Checked] = []
    for entry in entries:
        if progress is not None:
            progress(entry.label)
        rows.append(checker.row(entry))
    run = checker.control.trained.run
    batches = len(run.data.train) // run.settings.batch_size
    return Check(
        made.name,
        checker.facts,
        DataFacts.of(data, test_samples),
        made.settings,
        tuple(rows),
        batches * run.settings.epochs,
        len(run.data.train),
        time.perf_counter() - started,
    )


def _sealed(task: Task) -> tuple[Data, int]:
    """Return the data with its test split sealed, and how many samples are in that."""
    data = task.checked_data()
    return data.sealed(), len(data.test)


def _in_words(said: str, task: Task, make: Callable[[], Made]) -> Made:
    """Return what `make` makes; an error of the user's own code is said in one paragraph."""
    try:
        return make()
    except WhitError:
        raise
    except Exception as error:
        reason = reason_of(error, [task.name])
        if reason is None:
            raise
        raise TaskError(f"{said}: {reason}.") from error


class _Checker:
    """Holds the control that every technique is compared with."""

    def __init__(self, task: Task, data: Data) -> None:
        started = time.perf_counter()
        self.task = task
        self.data = data
        with torch.random.fork_rng(devices=[]):
            model = task.build_model(data, {})
            self.facts = ModelFacts.of(model, task, cut(data))
        self.built = layers_of(model)
        self.control = rehearse(task, data, Technique(), task.settings)
        self.control_seconds = time.perf_counter() - started

    def row(self, entry: Entry) -> Checked:
        """Rehearse one technique; what it refuses is said in its row."""
        started = time.perf_counter()
        settings = self.task.settings.changed(**entry.settings_changes)
        try:
            if entry.text == PLAIN:
                row = self._checked(entry, self.control)
                return replace(row, seconds=time.perf_counter() - started + self.control_seconds)
            row = self._checked(entry, rehearse(self.task, self.data, entry.technique, settings))
            return replace(row, seconds=time.perf_counter() - started)
        except Exception as error:
            reason = reason_of(error, [entry.text, self.task.name])
            if reason is None:
                raise
            return Checked(entry.text, entry.label, refused=reason)

    def _checked(self, entry: Entry, rehearsal: Rehearsal) -> Checked:
        brief = entry.technique.brief
        estimate, reason = estimated(rehearsal.trained, self.task.name, brief)
        stages = Stages(
            self.built,
            self.control.finished,
            rehearsal.prepared,
            rehearsal.fitted,
            rehearsal.finished,
        )
        found = differences(stages, self.facts.calls, self._calls_left(rehearsal), brief)
        return Checked(
            entry.text,
            entry.label,
            acts=tuple(_moments(entry.technique)),
            found=found,
            estimate=estimate,
            cannot_pack=reason,
            train_macs=rehearsal.train_macs,
            train_ratio=rehearsal.train_macs / max(1, self.control.train_macs),
        )

    def _calls_left(self, rehearsal: Rehearsal) -> tuple[ActivationCall, ...]:
        if not self.facts.calls:
            return ()
        train = rehearsal.trained.run.data.train
        example = train.batch(torch.arange(min(2, len(train))))
        return watched_forward(rehearsal.trained.model, example.inputs)[1]


def _moments(technique: Technique) -> Iterator[str]:
    """Yield where a technique acts, in the order of a run."""
    if technique.prepare_data is not keep:
        yield "on the data"
    if technique.prepare_model is not keep:
        yield "on the model before training"
    if technique.train is not train_once:
        yield "by a training procedure of its own"
    if technique.hooks:
        yield "at training steps"
    if technique.finish_model is not keep:
        yield "on the trained model"
