"""The last layer of a ternary network: one neuron a class, fitted to the labels by accuracy.

    predicted class = argmax_c (w_c . x + o_c),   w_c in {-1, 0, 1}^n, o_c a whole number

Neurons start alone (one class against the rest), then one after the other is fitted anew while the
others stand, as long as the share of right predictions rises. For a candidate of one neuron, the
best offset is found exactly by one scan.

Alemdar et al. 2017, arXiv 1609.00222. The offsets are ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whit.parts.ternary_search import Candidates, SearchOptions, largest_input, search_candidates
from whit.parts.threshold_scan import Floats, Sums

Labels = NDArray[np.int64]
# Samples whose inputs are floats at once.
_CHUNK = 4096
# Of a candidate on one sample: its sum, what it needs, the histogram.
_ADDITIONS = 3


class ClassNeurons:
    """Coordinate ascent over the neurons of the last layer.

    Args:
        weight: of the teacher, float [classes, n].
        inputs: of the student, whole numbers [n, N].
        labels: int64 [N].
        options: of each neuron's search.

    Attributes:
        weight: ternary, int8 [classes, n]; `use` changes it.
        offset: int64 [classes].
        tried: how many candidates were scored.
        work: additions and comparisons done so far.
    """

    def __init__(
        self,
        weight: Floats,
        inputs: NDArray[np.integer],
        labels: Labels,
        options: SearchOptions | None = None,
    ) -> None:
        """Begin with weights of zero."""
        self._teacher, self._inputs, self._labels = weight, inputs, labels
        self._options = options or SearchOptions()
        self.weight = np.zeros(weight.shape, dtype=np.int8)
        self.offset = np.zeros(len(weight), dtype=np.int64)
        self.tried = self.work = 0
        # float32 holds whole numbers up to 2^24.
        wide = largest_input(inputs) * len(inputs) >= 1 << 24
        self._exact: type[np.floating] = np.float64 if wide else np.float32
        # Kept, and renewed row by row: of w_c . x, without offsets.
        self._sums = np.zeros((len(weight), inputs.shape[1]), dtype=np.int32)

    def scores(self) -> NDArray[np.int64]:
        """Return the class scores, [classes, N]."""
        return self._sums + self.offset[:, None]

    def _renew(self, rows: NDArray[np.intp]) -> None:
        """Compute the sums of these classes."""
        columns, count = self._inputs.shape
        weight = self.weight[rows].astype(self._exact)
        for start in range(0, count, _CHUNK):
            part = self._inputs[:, start : start + _CHUNK].astype(self._exact)  # sums by BLAS
            self._sums[rows, start : start + _CHUNK] = np.matmul(weight, part)
        self.work += len(rows) * columns * count

    def accuracy(self) -> float:
        """Return the share of samples whose first highest score is the label's."""
        self.work += self._sums.size
        return float((self.scores().argmax(0) == self._labels).mean())

    def start_alone(self) -> None:
        """Fit each neuron to its class against the rest, both sides weighing the same."""
        self.use(np.zeros_like(self.weight), np.zeros_like(self.offset))
        for c in range(len(self.weight)):
            own = self._labels == c
            count = int(own.sum())
            weights = np.where(own, len(own) - count, count).astype(np.float64)
            zeros = np.zeros(len(own), dtype=np.int64)
            self._fit(c, _Side(zeros, own, weights))

    def sweep(self) -> float:
        """Fit each neuron anew among the others; return the accuracy, which never falls."""
        for c in range(len(self.weight)):
            rivals, right = self._rivals(c)
            own = self._labels == c
            # Counts, not shares: they add up exactly, so the accuracy cannot fall.
            weights = np.where(own | right, 1.0, 0.0)
            self._fit(c, _Side(rivals, own, weights))
        return self.accuracy()

    def use(self, weight: NDArray[np.int8], offset: NDArray[np.int64]) -> None:
        """Take over weights and offsets from elsewhere: a start, or those of a ternary teacher."""
        weight, self.offset = weight.astype(np.int8), offset.astype(np.int64)
        changed = (weight != self.weight).any(1).nonzero()[0]
        self.weight = weight
        self._renew(changed)

    def fit_offsets(self) -> float:
        """Fit the offsets only, one after the other, with the weights as they are."""
        for c in range(len(self.weight)):
            rivals, right = self._rivals(c)
            own = self._labels == c
            side = _Side(rivals, own, np.where(own | right, 1.0, 0.0))
            now = side.value(self._sums[c], int(self.offset[c]))
            value, offset = side.best_offset(self._sums[c])
            self.work += _ADDITIONS * len(own)
            if value > now:
                self.offset[c] = offset
        return self.accuracy()

    def _rivals(self, c: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return what class c must reach to be chosen, and where its rivals choose the label."""
        scores = self.scores()
        self.work += scores.size
        scores[:c] += 1  # of equal scores the first class is chosen
        scores[c] = np.iinfo(np.int64).min
        best = scores.argmax(0)
        return scores[best, np.arange(scores.shape[1])], best == self._labels

    def _fit(self, c: int, side: _Side) -> None:
        candidates = Candidates(self._teacher[c], self._inputs)
        plus, minus, tried = search_candidates(
            candidates,
            lambda p, m: side.best_offset(candidates.sums(p, m))[0],
            candidates.rounded(self._teacher[c]),
            side.most,
            self._options,
        )
        self.tried += tried
        # The prefix sums, then each candidate.
        self.work += self._inputs.size + _ADDITIONS * tried * self._inputs.shape[1]
        sums = candidates.sums(plus, minus)
        value, offset = side.best_offset(sums)
        if value > side.value(self._sums[c], int(self.offset[c])):
            self.weight[c], self.offset[c] = candidates.weight(plus, minus), offset
            self._sums[c] = sums


class _Side:
    """Samples of one class, which must be reached, and of the others, which must not.

    Args:
        rivals: what the class must reach, int64 [N].
        own: whether a sample is of the class.
        weights: of the samples; 0 where the class cannot change whether they are right.

    Attributes:
        most: all weights, which no value exceeds.
    """

    def __init__(self, rivals: NDArray[np.int64], own: NDArray[np.bool_], weights: Floats) -> None:
        self._rivals = rivals
        self._signed = np.where(own, weights, -weights)
        self._others = float(weights[~own].sum())
        self.most = float(weights.sum())

    def value(self, sums: Sums, offset: int) -> float:
        """Return the weight of the samples that are right with this offset."""
        chosen = sums + offset >= self._rivals
        return self._others + float(self._signed[chosen].sum())

    def best_offset(self, sums: Sums) -> tuple[float, int]:
        """Return the weight of right samples and the offset for which it is highest."""
        needed = self._rivals - sums
        start = int(needed.min())
        gains = np.cumsum(np.bincount(needed - start, self._signed))
        # Offset start + j chooses all samples with needed <= start + j; start - 1 chooses none.
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            return self._others, start - 1
        return self._others + float(gains[best]), start + best
