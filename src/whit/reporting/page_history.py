"""Learning curves and warnings that runs stored, put together over fits and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whit.rows import Row
    from whit.runs import Finished

MOST_EPOCHS = 300
Values = list[float | None]


@dataclass(frozen=True)
class Curve:
    """One quantity of one technique, epoch by epoch through all of its fits.

    Attributes:
        epochs: numbers of the epochs from 1, counted through all fits; at most MOST_EPOCHS.
        seeds: values of each seed at these epochs, None where there is none.
        mean: over seeds, None where a seed has no value: another set of seeds is another mean.
        starts: the first epochs of the second fit and of later ones.
    """

    epochs: list[int]
    seeds: list[Values]
    mean: Values
    starts: list[int]


def curve_of(row: Row, quantity: str) -> Curve | None:
    """Return the curve of "loss" or "valid"; None when no run of the row stored one.

    Args:
        row: with its runs.
        quantity: key of the stored history.
    """
    fits_of_seeds = [_fits(run) for run in row.runs]
    if not any(fits_of_seeds):
        return None
    lengths = [
        max(_length(fits[n]) for fits in fits_of_seeds if n < len(fits))
        for n in range(max(map(len, fits_of_seeds)))
    ]
    seeds = [_sequence(fits, quantity, lengths) for fits in fits_of_seeds]
    total = sum(lengths)
    if not any(value is not None for values in seeds for value in values):
        return None
    kept = _thinned(total)
    seeds = [[values[n] for n in kept] for values in seeds]
    starts = [sum(lengths[:n]) + 1 for n in range(1, len(lengths))]
    return Curve([n + 1 for n in kept], seeds, _means(seeds), starts)


def warnings_of(row: Row) -> list[str]:
    """Return the warnings of a row's trainings, each with its seed and fit."""
    found = []
    for run in row.runs:
        fits = _fits(run)
        for number, fit in enumerate(fits, 1):
            where = f"seed {run.planned.seed}" + (f", fit {number}" if len(fits) > 1 else "")
            found += [f"{where}: {text}" for text in fit.get("warnings") or []]
    return found


def _fits(run: Finished) -> list[dict[str, Any]]:
    return list(run.row.get("history") or [])


def _length(fit: dict[str, Any]) -> int:
    return max(len(fit.get("loss") or []), len(fit.get("valid") or []))


def _sequence(fits: Sequence[dict[str, Any]], quantity: str, lengths: Sequence[int]) -> Values:
    """Return one seed's values through all fits, each fit as long as the longest of all seeds."""
    values: Values = []
    for number, length in enumerate(lengths):
        stored = (fits[number].get(quantity) or []) if number < len(fits) else []
        finite = [v if isinstance(v, (int, float)) and isfinite(v) else None for v in stored]
        values += [*finite, *[None] * (length - len(finite))]
    return values


def _thinned(count: int) -> list[int]:
    """Return at most MOST_EPOCHS positions, evenly spread, the first and the last among them."""
    if count <= MOST_EPOCHS:
        return list(range(count))
    return sorted({round(n * (count - 1) / (MOST_EPOCHS - 1)) for n in range(MOST_EPOCHS)})


def _means(seeds: Sequence[Values]) -> Values:
    means: Values = []
    for values in zip(*seeds, strict=True):
        there = [value for value in values if value is not None]
        means.append(sum(there) / len(there) if len(there) == len(seeds) else None)
    return means
