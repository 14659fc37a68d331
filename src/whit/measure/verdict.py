"""Better, worse, or within noise? One rule for all comparisons, printed under every table.

Two questions must both be answered "yes, on the same side": do other seeds give the same sign (95 %
t interval of the seed-paired differences), and do other test samples (95 % interval of a paired
bootstrap over the test samples, each sample's correctness averaged over seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import WhitError

RULE = (
    "Verdict against the control: 'better' or 'worse' only if the 95 % t interval of the "
    "seed-paired differences and the 95 % paired bootstrap interval over the test samples both "
    "exclude 0 on the same side; otherwise 'within noise'; with one seed 'one seed'."
)
BOOTSTRAP_ROUNDS = 2000
WIDE_INTERVAL = 0.05  # 5 percentage points
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """The comparison of a technique with the control.

    Attributes:
        word: "better", "worse", "within noise" or "one seed".
        difference: mean test difference, technique minus control.
        seed_interval: 95 % interval over seeds, None with one seed.
        sample_interval: 95 % interval over test samples, None when samples have no right or wrong.
    """

    word: str
    difference: float
    seed_interval: Interval | None = None
    sample_interval: Interval | None = None

    def interval_text(self, points: bool) -> str:
        """Return the difference with its uncertainty, such as "(-3.9 to +1.4 points)".

        The interval is that over seeds; where it excludes 0 and the one over test samples is what
        leaves the verdict open, that one, marked so.

        Args:
            points: whether the metric is a share, so that a difference is in percentage points.
        """
        unit = " points" if points else ""
        if self.seed_interval is None:
            return f"({_signed(self.difference, points)}{unit}, add seeds)"
        shown, source = self.seed_interval, ""
        undecided = self.word == "within noise"
        if undecided and self.sample_interval is not None and shown[0] * shown[1] > 0:
            shown, source = self.sample_interval, " over samples"
        low, high = (_signed(end, points) for end in shown)
        wide = undecided and not source and shown[1] - shown[0] > WIDE_INTERVAL
        return f"({low} to {high}{unit}{source}{', add seeds' if wide else ''})"


def _signed(difference: float, points: bool) -> str:
    return f"{100 * difference:+.1f}" if points else f"{difference:+.3g}"


def judge(
    scores: Sequence[float],
    control: Sequence[float],
    correct: Sequence[NDArray[np.uint8]] | None = None,
    control_correct: Sequence[NDArray[np.uint8]] | None = None,
) -> Verdict:
    """Compare test scores with those of the control at the same seeds.

    Args:
        scores: one per seed.
        control: one per seed, same order.
        correct: per seed, 1 where a test sample was right; None if the metric is no accuracy.
        control_correct: likewise for the control.

    Raises:
        WhitError: the two lists count different seeds.
    """
    if len(scores) != len(control) or not scores:
        raise WhitError("A verdict needs the same seeds for the technique and the control.")
    differences = np.asarray(scores, dtype=float) - np.asarray(control, dtype=float)
    mean = float(differences.mean())
    samples = None
    if correct and control_correct:
        samples = bootstrap_interval(
            np.mean(correct, axis=0, dtype=float) - np.mean(control_correct, axis=0, dtype=float)
        )
    if len(differences) < 2:
        return Verdict("one seed", mean, None, samples)
    seeds = seed_interval(differences)
    intervals = [seeds] if samples is None else [seeds, samples]
    word = "within noise"
    if all(low > 0 for low, _ in intervals):
        word = "better"
    elif all(high < 0 for _, high in intervals):
        word = "worse"
    return Verdict(word, mean, seeds, samples)


def seed_interval(differences: NDArray[np.float64]) -> Interval:
    """Return the 95 % t interval of the mean of paired differences; shape [seeds], seeds >= 2."""
    from scipy.stats import t

    spread = float(differences.std(ddof=1)) / len(differences) ** 0.5
    reach = float(t.ppf(0.975, len(differences) - 1)) * spread
    mean = float(differences.mean())
    return mean - reach, mean + reach


def bootstrap_interval(differences: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return the 95 % percentile interval of the mean under resampling; shape [samples].

    Args:
        differences: technique minus control per test sample.
        seed: of the resampling; fixed, so that a table can be repeated.
    """
    generator = np.random.default_rng(seed)
    # Only few different values occur, so drawing how often each occurs is the same as drawing
    # samples.
    values, counts = np.unique(differences, return_counts=True)
    draws = generator.multinomial(len(differences), counts / counts.sum(), size=BOOTSTRAP_ROUNDS)
    means = draws @ values / len(differences)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
