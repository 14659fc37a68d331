"""A rehearsal: a technique's own slots on a few samples, to see what they would do to a model.

The model has its real size, for it is built from the whole data; only training and validation are
cut. There is no test split in it: a copy of the cut validation split stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from whit.core.data import Data, Split
from whit.core.execution import Conditions, Trained, train
from whit.core.run import Run
from whit.core.settings import Settings
from whit.core.surroundings import Progress
from whit.core.task import Task
from whit.core.technique import Technique, keep
from whit.measure.meter import Meter
from whit.model_layers import Layers, layers_of

SEED = 0
SAMPLES = 32
# Several epochs of one step: a procedure in rounds has some to share out, masks move to their end.
EPOCHS = 4
# Weights hardly move at this rate, so no rehearsal diverges whatever the task's own rate is.
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal leaves.

    Attributes:
        trained: the finished model, and the run with the cut data.
        prepared: layers after `prepare_model`; None when the procedure made its model itself.
        fitted: layers as the procedure returned the model.
        finished: layers after `finish_model`.
        train_macs: estimate for the whole data and all epochs, from the rehearsal's own count.
    """

    trained: Trained
    prepared: Layers | None
    fitted: Layers
    finished: Layers
    train_macs: int


def rehearse(task: Task, data: Data, technique: Technique, settings: Settings) -> Rehearsal:
    """Carry out a technique's slots on cut data: procedures, hooks and all.

    Args:
        task: whose control model is changed.
        data: of the task, checked; sealed or not, the test split is not read.
        technique: the sum of techniques.
        settings: of the real training; epochs, rate and batch size are lowered here.

    Raises:
        WhitError: the technique refuses, with its own reason.
    """
    small = cut(data)
    watched = _Watched(technique, data)
    short = settings.changed(
        epochs=min(settings.epochs, EPOCHS),
        learning_rate=min(settings.learning_rate, LEARNING_RATE),
        batch_size=min(settings.batch_size, len(small.train)),
    )
    stand_in = replace(small, test=small.valid)
    given = {option.name: getattr(task, option.name) for option in fields(Task)}
    changes = {"load": lambda: stand_in, "build": watched.build(task.build)}
    rehearsed = _CheckedTask(**{**given, **changes})
    conditions = Conditions(seed=SEED, progress=watched.note_epoch)
    trained = train(rehearsed, watched.technique(), short, conditions)
    trained.model.cpu()
    scale = _Scale(settings, short, len(watched.data.train), len(trained.run.data.train))
    return Rehearsal(
        trained,
        watched.prepared,
        watched.fitted,
        layers_of(trained.model),
        scale.train_macs(watched.epochs, watched.meter.charge().train_macs),
    )


class _CheckedTask(Task):
    """A task whose data were checked before they were cut: few samples may show one value only."""

    def checked_data(self) -> Data:
        return self.load().map_splits(Split.copied)


def cut(data: Data) -> Data:
    """Return the data with few training and validation samples; every class keeps some."""
    return replace(data, train=cut_split(data.train), valid=cut_split(data.valid))


def cut_split(split: Split) -> Split:
    """Return the first samples of each class, in their order: `SAMPLES`, at least one per class.

    A target that is no class number gives the first samples as they are.
    """
    target = split.target
    if target.dtype != torch.int64 or target.dim() != 1:
        return split.subset(torch.arange(min(len(split), SAMPLES)))
    turn = _turn_in_class(target)
    classes = int((turn == 0).sum())
    count = min(len(split), max(SAMPLES, classes))
    return split.subset(turn.argsort(stable=True)[:count].sort().values)


def _turn_in_class(target: Tensor) -> Tensor:
    """Return for each sample how many of its class come before it; [samples] -> [samples]."""
    order = target.argsort(stable=True)
    _, sizes = target.unique(return_counts=True)  # type: ignore[no-untyped-call]
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(target)) - starts
    return turn


@dataclass(frozen=True)
class _Epoch:
    """The end of an epoch: which call of `fit`, how far, and what the meter showed."""

    progress: Progress
    macs: int


@dataclass
class _Watched:
    """A technique whose slots tell what they did; `data` is the whole data, prepared."""

    own: Technique
    data: Data
    prepared: Layers | None = None
    fitted: Layers = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)
    epochs: list[_Epoch] = field(default_factory=list)
    # Weak: a search may build many models.
    _of_models: WeakKeyDictionary[nn.Module, Layers] = field(default_factory=WeakKeyDictionary)

    def technique(self) -> Technique:
        return replace(
            self.own,
            prepare_data=self._prepare_data,
            prepare_model=self._prepare_model,
            train=self._train,
        )

    def build(self, own: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Return the task's `build`, given the whole data: sizes may follow from it."""

        @wraps(own)
        def build(data: Data, **choices: object) -> nn.Module:
            return own(self.data, **choices)

        return build

    def note_epoch(self, progress: Progress) -> None:
        self.epochs.append(_Epoch(progress, self.meter.charge().train_macs))

    def _prepare_data(self, given: Data) -> Any:
        whole: Any = self.data.sealed()
        if self.own.prepare_data is not keep:  # it may write into the tensors
            whole = self.own.prepare_data(whole.map_splits(Split.copied).sealed())
        if isinstance(whole, Data):  # else `train` says what is wrong
            self.data = whole
            whole = cut(whole)
        return whole

    def _prepare_model(self, model: nn.Module, data: Data) -> nn.Module:
        made = self.own.prepare_model(model, data)
        if isinstance(made, nn.Module):
            self._of_models[made] = layers_of(made)
        return made

    def _train(self, run: Run) -> nn.Module:
        self.meter = run.meter
        model = self.own.train(run)
        if isinstance(model, nn.Module):
            self.fitted = layers_of(model)
            self.prepared = self._of_models.get(model)
        return model


@dataclass(frozen=True)
class _Scale:
    """From the rehearsal's multiply-accumulates to those of the real training."""

    real: Settings
    short: Settings
    samples: int
    samples_cut: int

    def train_macs(self, epochs: list[_Epoch], total: int) -> int:
        """Scale what is done in every epoch by epochs and samples, all else by samples alone.

        Args:
            epochs: ends of all epochs, of all calls of `fit`.
            total: charged in the rehearsal, in all.
        """
        in_epochs = repeated = 0.0
        before = 0
        for number in sorted({end.progress.fit for end in epochs}):
            ends = [end for end in epochs if end.progress.fit == number]
            first, last = ends[0], ends[-1]
            passes = last.progress.epoch - first.progress.epoch
            one = (last.macs - first.macs) / passes if passes else last.macs - before
            in_epochs += one * last.progress.epochs
            repeated += one * last.progress.epochs * self.real.epochs / self.short.epochs
            before = last.macs
        used = _used(self.samples, self.real) / _used(self.samples_cut, self.short)
        once = max(0.0, total - in_epochs) * self.samples / self.samples_cut
        return round(repeated * used + once)


def _used(samples: int, settings: Settings) -> int:
    """Return the samples of one epoch; `fit` leaves out a last, smaller batch."""
    batch = min(settings.batch_size, samples)
    return samples // batch * batch
