"""The two best thresholds of a ternary neuron, found exactly by one scan over histograms.

    rule(s) = -1 if s < low, +1 if s > high, else 0,   low <= high + 1
    score   = 1/N sum_x P(rule(s(x)) | x)

P(i | x) says how likely the teacher fires i in {-1, 0, +1}. No score exceeds 1/N sum_x max_i P(i |
x).

Alemdar et al. 2017, arXiv 1609.00222.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sums = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Firing:
    """What a teacher neuron fires on N samples, as the threshold scan needs it.

    Args:
        below: P(-1) - P(0), float64 [N].
        above: P(+1) - P(0), float64 [N].
        idle: sum of P(0).
        bound: mean over samples of the largest of the three, which no score exceeds.
    """

    below: Floats
    above: Floats
    idle: float
    bound: float

    @classmethod
    def of_rate(cls, rho: Floats) -> Firing:
        """Return the firing of a neuron with these means; see `firing_probabilities`."""
        rho = np.asarray(rho, dtype=np.float64)
        minus, plus = np.maximum(-rho, 0), np.maximum(rho, 0)
        zero = 1 - np.abs(rho)
        largest = np.maximum(np.maximum(minus, plus), zero)
        return cls(minus - zero, plus - zero, float(zero.sum()), float(largest.mean()))


@dataclass(frozen=True)
class Thresholds:
    """The best rule for some sums: `score` in 0..1, `low <= high + 1`."""

    score: float
    low: int
    high: int


def best_thresholds(sums: NDArray[np.integer], firing: Firing) -> Thresholds:
    """Return the two thresholds with the highest score, by one scan over all pairs.

    With A and B the histograms of `below` and `above`, the score of (low, high) is idle + sum of A
    under low + sum of B over high; a running maximum of the latter leaves one loop over low.

    Args:
        sums: whole numbers [N].
        firing: of the same N samples.
    """
    start = int(sums.min())
    places = sums - start
    width = int(places.max()) + 1
    under = np.zeros(width + 1)
    np.cumsum(np.bincount(places, firing.below, width), out=under[1:])
    over = np.zeros(width + 1)
    np.cumsum(np.bincount(places, firing.above, width)[::-1], out=over[1:])
    over = over[::-1]  # over[j]: sum of B from place j on, that is for high = start + j - 1
    best_over = np.maximum.accumulate(over[::-1])[::-1]
    first = int(np.argmax(under + best_over))
    last = first + int(np.argmax(over[first:]))
    score = (firing.idle + under[first] + over[last]) / len(sums)
    return Thresholds(float(score), start + first, start + last - 1)
