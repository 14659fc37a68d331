"""Schedules: stateless functions of the fraction t of a training run, 0 <= t <= 1.

Learning-rate schedules return the factor of the peak rate. Sparsity schedules return the
fraction of the final sparsity that holds at t; they rise from about 0 to exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]

WARM_UP = 0.3
START_FACTOR = 0.04


def one_cycle_rate(t: float) -> float:
    """Rise linearly from 0.04 to 1 over the first 30 %, then fall to 0 along a cosine."""
    if t < WARM_UP:
        return START_FACTOR + (1 - START_FACTOR) * t / WARM_UP
    return cosine_rate((t - WARM_UP) / (1 - WARM_UP))


def cosine_rate(t: float) -> float:
    """Fall from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * min(t, 1.0))) / 2


def constant_rate(t: float) -> float:
    """Stay at 1."""
    return 1.0


LEARNING_RATES: dict[str, Schedule] = {
    "one_cycle": one_cycle_rate,
    "cosine": cosine_rate,
    "constant": constant_rate,
}


def one_cycle_sparsity(t: float, alpha: float = 14.0, beta: float = 6.0) -> float:
    """Return the S-curve of one-cycle pruning (Hubens et al. 2021), exactly 1 at t = 1.

    (1 + exp(-alpha + beta)) / (1 + exp(-alpha t + beta)); half is reached near t = beta / alpha.
    Written with tanh so that a large alpha does not overflow.
    """
    return _logistic(alpha * t - beta) / _logistic(alpha - beta)


def _logistic(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def one_shot_sparsity(t: float, start: float = 0.5) -> float:
    """Prune all at once when the fraction `start` of the run is over."""
    return float(t >= start)


def iterative_sparsity(t: float, start: float = 0.2, steps: int = 3) -> float:
    """Prune in `steps` equal jumps between `start` and the end; the first is just after start."""
    if t <= start:
        return 0.0
    return math.ceil(min((t - start) / (1 - start), 1.0) * steps - 1e-9) / steps


def gradual_sparsity(t: float, start: float = 0.2) -> float:
    """Rise as 1 - (1 - u)^3 from `start` to the end (Zhu and Gupta 2017)."""
    u = min(max((t - start) / (1 - start), 0.0), 1.0)
    return 1 - (1 - u) ** 3


def within_window(schedule: Schedule, start: float = 0.0, end: float = 1.0) -> Schedule:
    """Squeeze a sparsity schedule into the window start..end: 0 before it, 1 after it."""

    def squeezed(t: float) -> float:
        if t < start:
            return 0.0
        return 1.0 if t >= end else schedule((t - start) / (end - start))

    return squeezed
