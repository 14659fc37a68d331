"""What surrounds one call of `fit`, and what it tells after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from whit.core.data import Split
from whit.core.history import FitRecord
from whit.core.task import Task
from whit.measure.meter import Meter


@dataclass(frozen=True)
class Progress:
    """How far one call of `fit` is.

    Attributes:
        fit: number of this call within the run, from 0.
        epoch: finished epochs.
        epochs: all epochs of this call.
        loss: mean training loss of the last epoch.
        valid: the task's metric on the validation split after the epoch, which is not charged to
            `train_macs` and `train_seconds`; None where it cannot be had (`warnings` say why).
        metric: name of the metric.
        seconds_left: expected seconds of this call's epochs to come.
        warnings: what looks unhealthy and was not said before in this call, a sentence each.
        figures: what an own loop counted in its last round, by name.
    """

    fit: int
    epoch: int
    epochs: int
    loss: float
    valid: float | None = None
    metric: str = ""
    seconds_left: float = math.inf
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Surroundings:
    """What surrounds one call of `fit`.

    Attributes:
        task: gives loss and output axes.
        device: where to compute.
        meter: is charged.
        seed: of the order of samples, the augmentation and the hooks' generator.
        number: of this call within the run.
        checkpoint: file to save to and resume from, or None.
        identity: a checkpoint of another identity is ignored.
        progress: called after every epoch, or None.
        valid: samples for the metric after every epoch, or None.
        classes: how many scores the output must have; 0 for any number.
        record: the learning curves of this call, filled epoch by epoch.
    """

    task: Task
    device: torch.device
    meter: Meter
    seed: int = 0
    number: int = 0
    checkpoint: Path | None = None
    identity: str = ""
    progress: Callable[[Progress], None] | None = None
    valid: Split | None = None
    classes: int = 0
    record: FitRecord = field(default_factory=FitRecord)
