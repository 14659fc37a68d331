"""Settings of one training run, the same for every technique of a comparison."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace

from whit.core.options import is_number, nearest
from whit.errors import SettingsError

OPTIMIZERS = ("adamw", "adam", "sgd")
LARGEST = 1_000_000_000
SCHEDULES = ("one_cycle", "cosine", "constant")


@dataclass(frozen=True)
class Settings:
    """How `fit` trains.

    Attributes:
        epochs: passes over the training data, >= 1.
        batch_size: samples per step, >= 1.
        learning_rate: peak rate, > 0.
        optimizer: "adamw", "adam" or "sgd" (Nesterov momentum 0.9).
        weight_decay: decoupled for adamw, >= 0; not applied to vectors (biases, normalisation).
        schedule: "one_cycle" (linear rise over the first 30 %, cosine fall to 0), "cosine",
            "constant".
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    schedule: str = "one_cycle"

    def __post_init__(self) -> None:
        """Check ranges."""
        _whole("epochs", self.epochs)
        _whole("batch_size", self.batch_size)
        _within("learning_rate", self.learning_rate, 0.0, math.inf, open_below=True)
        _within("weight_decay", self.weight_decay, 0.0, math.inf)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)

    def changed(self, **changes: object) -> Settings:
        """Return a copy with changes.

        Raises:
            SettingsError: an unknown name or a value out of range.
        """
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise SettingsError(f"There is no setting '{name}'. {nearest(name, known)}")
        return replace(self, **changes)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, object]:
        """Return the settings as plain values, for results and identities."""
        return asdict(self)


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        huge = isinstance(value, int) and abs(value) > LARGEST
        given = "a huge number" if huge else repr(value)
        raise SettingsError(
            f"Setting '{name}' was given {given}; expected a whole number from 1 to {LARGEST:,}."
        )


def _within(name: str, value: object, low: float, high: float, open_below: bool = False) -> None:
    fits = (
        isinstance(value, (int, float))  # for the type checker; is_number says the rest
        and is_number(value)
        and (value > low if open_below else value >= low)
        and value < high
    )
    if not fits:
        sign = ">" if open_below else ">="
        limit = "" if high == math.inf else f" and < {high:g}"
        raise SettingsError(
            f"Setting '{name}' was given {value!r}; expected a number {sign} {low:g}{limit}."
        )


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"Setting '{name}' was given {value!r}. {nearest(str(value), known)}")
