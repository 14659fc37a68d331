"""A run, as a procedure sees it: the verbs `build`, `fit`, `loop`, `evaluate` and `plain`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from whit.core.budget import Budget
from whit.core.checkpoints import checkpoint_path
from whit.core.data import Data, Split
from whit.core.device import Device
from whit.core.fit import Progress, Surroundings, fit, predict
from whit.core.history import FitRecord
from whit.core.notes import Note
from whit.core.own_loop import OwnLoop
from whit.core.settings import Settings
from whit.core.task import Task
from whit.core.technique import HookFactory, Technique
from whit.errors import TaskError, TestDataSealed
from whit.measure.meter import Meter

ShowProgress = Callable[[Progress], None]


Signature = tuple[str, tuple[tuple[str, torch.Size], ...]]


@dataclass(frozen=True)
class Build:
    """A model that was built by choices.

    Attributes:
        model: a weak reference to it.
        choices: keywords of the task's `build`.
        signature: of the model as it was built.
    """

    model: ReferenceType[nn.Module]
    choices: dict[str, object]
    signature: Signature


def signature_of(model: nn.Module) -> Signature:
    """Return a model's class and the names and shapes of its tensors."""
    shapes = tuple((name, tensor.shape) for name, tensor in model.state_dict().items())
    return f"{type(model).__module__}.{type(model).__qualname__}", shapes


@dataclass
class Ledger:
    """What a run and its `plain()` view share.

    Attributes:
        device: where to compute, and the other processes.
        seed: of the run.
        identity: of its checkpoints.
        folder: for its checkpoints, or None.
        budget: limits of the user.
        progress: called after every epoch, or None.
        fits: calls of `fit` so far.
        history: learning curves, one record for each call of `fit`.
        builds: every model that was built by choices, and its shapes.
        notes: what the procedure shows beside the scorecard, by name.
        meter: charged for all training.
    """

    device: Device
    seed: int
    identity: str
    folder: Path | None = None
    budget: Budget = field(default_factory=Budget)
    progress: ShowProgress | None = None
    fits: int = 0
    history: list[FitRecord] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        """Let the meter see what this run sends to other processes."""
        self.meter = Meter(sent=lambda: self.device.exchanged_bytes)

    def choices_of(self, model: nn.Module) -> dict[str, object] | None:
        """Return the choices that build a model like this one, None when there are none.

        The model may be a copy of a built one (the best epoch's, an average).
        """
        for build in self.builds:
            if build.model() is model:
                return build.choices
        like = [b.choices for b in self.builds if b.signature == signature_of(model)]
        return like[0] if like and all(choices == like[0] for choices in like) else None

    def next_fit(self, task: Task) -> Surroundings:
        """Count a call of `fit` and return what surrounds it."""
        number, folder = self.fits, self.folder
        self.fits += 1
        self.history.append(FitRecord(fit=number))
        return Surroundings(
            task=task,
            device=self.device.torch,
            meter=self.meter,
            seed=mixed_seed(self.seed, self.device.rank, number),
            number=number,
            checkpoint=None if folder is None else checkpoint_path(folder, number),
            identity=self.identity,
            progress=self.progress,
            record=self.history[-1],
        )


class Run:
    """What a procedure (the slot `train`) may use: `build`, `fit`, `loop`, `evaluate`, `plain`.

    Attributes:
        task: what is learnt.
        technique: whose slots `build` and `fit` apply.
        settings: of every `fit` that is not told otherwise.
        data: prepared by the technique, its test split sealed.
        device: where to compute, and the other processes.
        meter: is charged for all training.
        budget: limits of the user, for searches.
    """

    def __init__(
        self, task: Task, technique: Technique, settings: Settings, data: Data, ledger: Ledger
    ) -> None:
        """Gather the parts; called by `train`."""
        self.task = task
        self.technique = technique
        self.settings = settings
        self.data = data
        self.device = ledger.device
        self.meter = ledger.meter
        self.budget = ledger.budget
        self._ledger = ledger

    @property
    def fits(self) -> int:
        """How often `fit` was called in this run."""
        return self._ledger.fits

    @property
    def history(self) -> list[dict[str, Any]]:
        """Learning curves so far, one entry for each call of `fit`; see `FitRecord`."""
        return [record.as_dict() for record in self._ledger.history]

    @property
    def notes(self) -> dict[str, dict[str, Any]]:
        """What was noted so far, as plain values; see `note`."""
        return self._ledger.notes

    def note(self, name: str, note: Note) -> None:
        """Keep a table, lines or pictures beside the scorecard; the report shows them.

        Args:
            name: its heading; an earlier note of this name is replaced.
            note: of `whit.core.notes`.

        Raises:
            SpecError: the note is not as its class says.
        """
        self._ledger.notes[name] = note.as_dict()

    def build(self, module: nn.Module | None = None, /, **choices: object) -> nn.Module:
        """Return a new, prepared model.

        Args:
            module: prepared instead of a newly built one; for searches that make their own.
            choices: keywords of the task's `build`, such as `width=0.5`.

        Raises:
            TaskError: a choice that the task does not know.
        """
        if module is not None:
            return self._prepared(module)
        model = self._prepared(self.task.build_model(self.data, choices))
        self._ledger.builds.append(Build(ref(model), choices, signature_of(model)))
        return model

    def _prepared(self, module: nn.Module) -> nn.Module:
        model = self.technique.prepare_model(module, self.data)
        if not isinstance(model, nn.Module):
            raise TaskError(
                f"prepare_model of '{self.technique.brief}' returned {type(model).__name__}, "
                "expected the model."
            )
        return model

    def fit(
        self,
        model: nn.Module,
        *,
        data: Split | None = None,
        sample_weights: Tensor | None = None,
        settings: Settings | None = None,
        hooks: Sequence[HookFactory] = (),
        epochs: int | None = None,
    ) -> nn.Module:
        """Train a model in place and return it: the one loop, charged to the meter.

        Args:
            model: from `build`, or any module that fits the task.
            data: other samples than the training split.
            sample_weights: non-negative [samples]; samples are drawn in proportion to them.
            settings: other settings than the run's.
            hooks: factories to add after those of the technique.
            epochs: other number than the settings say.
        """
        settings = settings or self.settings
        if epochs is not None:
            settings = settings.changed(epochs=epochs)
        # Other samples may ask for other outputs.
        classes = len(self.data.class_names) if data is None else 0
        return fit(
            model,
            data or self.data.train,
            settings,
            (*self.technique.hooks, *hooks),
            replace(self._ledger.next_fit(self.task), valid=self.data.valid, classes=classes),
            augment=self.data.augment,
            sample_weights=sample_weights,
        )

    def loop(self, model: nn.Module, rounds: int) -> OwnLoop:
        """Return a training loop that is not `fit`, for a procedure to fill: charged and resumed.

        Args:
            model: that is trained in it.
            rounds: parts of the training after which it is validated, shown and saved, >= 1.
        """
        return OwnLoop(
            model, rounds, replace(self._ledger.next_fit(self.task), valid=self.data.valid)
        )

    def evaluate(self, model: nn.Module, split: str | Split = "valid") -> float:
        """Return the task's metric on "train", "valid" or given samples; "test" is sealed.

        Raises:
            TestDataSealed: the split is "test".
        """
        if isinstance(split, str) and split not in ("train", "valid"):
            raise TestDataSealed(
                f"A procedure asked to evaluate on '{split}'. Only 'valid' and 'train' can be "
                f"used while training; the test split is read once, by the final measurement."
            )
        named = {"train": self.data.train, "valid": self.data.valid}
        chosen = named[split] if isinstance(split, str) else split
        output = predict(model, chosen, self.task, self.device.torch)
        return self.task.score(output, chosen.target)

    def plain(self) -> Run:
        """Return the run with an empty technique and the same meter: for teachers and controls."""
        return Run(self.task, Technique(), self.settings, self.data, self._ledger)


def mixed_seed(*numbers: int) -> int:
    """Return one seed from several numbers, unrelated for neighbouring ones."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:6], "big")
