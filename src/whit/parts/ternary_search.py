"""Fit one ternary neuron to a teacher neuron: which weights become +1 and -1, and two thresholds.

The neuron's positive weights are sorted by falling value, the negative ones by falling magnitude. A
candidate (k+, k-) makes the first k+ of the one +1, the first k- of the other -1, and the rest 0.
Its score is the expected agreement with the teacher's firing,

    score = 1/N sum_x P(rule(s(x)) | x),   rule(s) = -1 if s < low, +1 if s > high, else 0

for which the best thresholds are found exactly from histograms of the whole sums s.

Alemdar et al. 2017, arXiv 1609.00222; the search follows the public code of the authors, from our
method card.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import SpecError, WhitError
from whit.parts.threshold_scan import Firing, Floats, Sums, Thresholds, best_thresholds

# How far a search starts from the ends of a range: (3 - sqrt 5) / 2.
_GOLDEN = 0.381966


@dataclass(frozen=True)
class SearchOptions:
    """How (k+, k-) is searched.

    Args:
        good_enough: share of the bound under which a neuron is searched exhaustively, 0..1.
        most_candidates: candidates of an exhaustive search, >= 0. Where there are more, an even
            grid of so many is tried, and the neighbourhood of its best point.
    """

    good_enough: float = 0.95
    most_candidates: int = 1024

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.good_enough <= 1:
            raise SpecError(
                f"good_enough was given {self.good_enough!r}; expected a number between 0 and 1."
            )
        count = self.most_candidates
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise SpecError(f"most_candidates was given {count!r}; expected a whole number >= 0.")


@dataclass(frozen=True, eq=False)
class Neuron:
    """A fitted neuron.

    Args:
        weight: -1, 0, +1, int8 [n].
        value: what its candidates were compared by; for hidden neurons the score.
        low: threshold, below it -1.
        high: threshold, above it +1.
        tried: how many candidates were scored.
    """

    weight: NDArray[np.int8]
    value: float
    low: int
    high: int
    tried: int


class Candidates:
    """Sums of all candidates (k+, k-) of one neuron: differences of two prefix sums.

    Args:
        weight: of the teacher, float [n].
        inputs: whole numbers, int16 [n, N], one row for each weight.

    Attributes:
        most_plus: number of positive weights.
        most_minus: number of negative weights.
    """

    def __init__(self, weight: Floats, inputs: NDArray[np.integer]) -> None:
        """Sort the weights and add up their inputs."""
        if len(weight) != len(inputs):
            raise WhitError(
                f"A neuron of {len(weight)} weights was given {len(inputs)} rows of inputs."
            )
        order = np.argsort(-np.abs(weight), kind="stable")
        self._size = len(weight)
        self._plus = order[weight[order] > 0]
        self._minus = order[weight[order] < 0]
        # Sums of wide layers and large inputs overflow 16 bits; the others take half the memory.
        kind = np.int16 if largest_input(inputs) * len(weight) < 1 << 15 else np.int32
        self._plus_sums = _prefix_sums(inputs, self._plus, kind)
        self._minus_sums = _prefix_sums(inputs, self._minus, kind)
        self.most_plus, self.most_minus = len(self._plus), len(self._minus)

    def sums(self, plus: int, minus: int) -> Sums:
        """Return s of every sample, int32 [N]."""
        sums: Sums = np.subtract(self._plus_sums[plus], self._minus_sums[minus], dtype=np.int32)
        return sums

    def weight(self, plus: int, minus: int) -> NDArray[np.int8]:
        """Return the ternary weights, int8 [n]."""
        made = np.zeros(self._size, dtype=np.int8)
        made[self._plus[:plus]] = 1
        made[self._minus[:minus]] = -1
        return made

    def rounded(self, weight: Floats, share: float = 0.7) -> tuple[int, int]:
        """Return the candidate that keeps the weights above a share of the mean magnitude."""
        limit = share * float(np.abs(weight).mean()) if self._size else 0.0
        return int((weight > limit).sum()), int((weight < -limit).sum())


def largest_input(inputs: NDArray[np.integer]) -> int:
    """Return the largest magnitude of whole numbers, 0 for none."""
    return max(int(inputs.max(initial=0)), -int(inputs.min(initial=0)))


def _prefix_sums(
    inputs: NDArray[np.integer], rows: NDArray[np.intp], kind: type[np.signedinteger]
) -> NDArray[np.signedinteger]:
    sums = np.zeros((len(rows) + 1, inputs.shape[1]), dtype=kind)
    for place, row in enumerate(rows):  # not all at once: that would copy the inputs
        np.add(sums[place], inputs[row], dtype=kind, out=sums[place + 1])
    return sums


Value = Callable[[int, int], float]


class _Search:
    """Maximises a function of (k+, k-) that is nearly unimodal; asks for each point once."""

    def __init__(self, value: Value, most_plus: int, most_minus: int) -> None:
        self._value = value
        self.most_plus, self.most_minus = most_plus, most_minus
        self._known: dict[tuple[int, int], float] = {}

    @property
    def tried(self) -> int:
        return len(self._known)

    def at(self, plus: int, minus: int) -> float:
        point = plus, minus
        if point not in self._known:
            self._known[point] = self._value(plus, minus)
        return self._known[point]

    def best(self) -> tuple[int, int]:
        return max(self._known, key=lambda point: (self._known[point], -sum(point)))

    def dichotomic(self) -> None:
        """Search k+ by sections, with a search of k- nested in it."""

        def along(plus: int) -> float:
            return _highest(lambda minus: self.at(plus, minus), self.most_minus)

        _highest(along, self.most_plus)

    def window(self) -> None:
        """Try all points around the best one, 2 ln(n) + 1 each way."""
        plus, minus = self.best()
        for p in _around(plus, self.most_plus):
            for m in _around(minus, self.most_minus):
                self.at(p, m)

    def exhaustive(self, most: int) -> None:
        """Try all points, or an even grid of so many."""
        rows, columns = self.most_plus + 1, self.most_minus + 1
        step = max(1, math.ceil(math.sqrt(rows * columns / max(1, most))))
        if most == 0:
            return
        for p in range(0, rows, step):
            for m in range(0, columns, step):
                self.at(p, m)
        if step > 1:
            self.window()


def _around(centre: int, most: int) -> range:
    reach = int(math.log(most)) if most > 1 else 1
    return range(max(0, centre - reach), min(most, centre + reach) + 1)


def _highest(value: Callable[[int], float], most: int) -> float:
    """Return the maximum of a unimodal function of 0..most by golden sections."""
    low, high = 0, most
    left = low + round(_GOLDEN * (high - low))
    right = low + high - left
    while high - low > 3 and left < right:
        if value(left) < value(right):
            low, left = left, right
            right = low + high - left
        else:
            high, right = right, left
            left = low + high - right
        if left >= right:  # rounding has upset the sections
            left = low + round(_GOLDEN * (high - low))
            right = low + high - left
    return max(value(k) for k in range(low, high + 1))


def search_candidates(
    candidates: Candidates,
    value: Value,
    start: tuple[int, int],
    bound: float,
    options: SearchOptions,
) -> tuple[int, int, int]:
    """Return (k+, k-) with the highest value found, and how many were tried.

    Sections, a window around their result, and all candidates where that is below `good_enough` of
    the bound.

    Args:
        candidates: of one neuron.
        value: what to maximise.
        start: a candidate that is tried too, so that the result is never below it.
        bound: no value is above it.
        options: see `SearchOptions`.
    """
    search = _Search(value, candidates.most_plus, candidates.most_minus)
    search.at(*start)
    search.dichotomic()
    search.window()
    if search.at(*search.best()) < options.good_enough * bound:
        search.exhaustive(options.most_candidates)
    return *search.best(), search.tried


def fit_neuron(
    weight: Floats,
    inputs: NDArray[np.integer],
    firing: Firing,
    options: SearchOptions | None = None,
    pool: Callable[[Sums], Sums] | None = None,
) -> Neuron:
    """Fit a hidden neuron to a teacher's.

    Args:
        weight: of the teacher, float [n].
        inputs: of the student, whole numbers [n, columns].
        firing: of the teacher on N samples.
        options: of the search.
        pool: int32 [columns] -> int32 [N], between sums and thresholds; None where columns = N.
    """
    options = options or SearchOptions()
    candidates = Candidates(weight, inputs)

    def thresholds(plus: int, minus: int) -> Thresholds:
        sums = candidates.sums(plus, minus)
        return best_thresholds(sums if pool is None else pool(sums), firing)

    plus, minus, tried = search_candidates(
        candidates,
        lambda p, m: thresholds(p, m).score,
        candidates.rounded(weight),
        firing.bound,
        options,
    )
    found = thresholds(plus, minus)
    return Neuron(candidates.weight(plus, minus), found.score, found.low, found.high, tried)
