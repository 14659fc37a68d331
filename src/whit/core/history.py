"""The course of a run: what every epoch of every call of `fit` gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any


@dataclass
class FitRecord:
    """Learning curves of one call of `fit`.

    Attributes:
        fit: number of the call within the run, from 0.
        epochs: all epochs of the call.
        loss: mean training loss of each finished epoch.
        valid: the task's metric on the validation split after each epoch; None where it is unknown.
        seconds: wall time of each epoch, the validation included.
        warnings: what looked unhealthy, a sentence each.
        figures: what an own loop counted in each round (moves, candidates a second), by name; empty
            for `fit`.
    """

    fit: int = 0
    epochs: int = 0
    loss: list[float] = field(default_factory=list)
    valid: list[float | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)

    def add(self, loss: float, valid: float | None, seconds: float) -> None:
        """Add a finished epoch."""
        self.loss.append(loss)
        self.valid.append(valid if valid is None or isfinite(valid) else None)
        self.seconds.append(seconds)

    @property
    def seconds_left(self) -> float:
        """Expected seconds of the epochs to come, by the mean of those done; infinite before."""
        if not self.seconds:
            return float("inf")
        mean = sum(self.seconds) / len(self.seconds)
        return mean * (self.epochs - len(self.seconds))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for checkpoints and results."""
        return asdict(self)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take back what `as_dict` returned."""
        for name, value in saved.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)
