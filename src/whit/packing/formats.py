"""Choosing a weight's storage from its values, by bytes.

Labels are not trusted: a weight is stored as one bit when it has two levels -s and +s, whatever
the technique that made it was called.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight, no_scale

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """A stored weight and the reason in words."""

    weight: StoredWeight
    reason: str


def choose_storage(values: Floats) -> Choice:
    """Choose the format that takes the fewest bytes for a matrix.

    Decoding gives the very same float32 values; only -0.0 becomes +0.0.

    Args:
        values: float32 [rows, columns], finite.

    Returns:
        The weight in the smallest format (of equals: levels, then the simplest), and why.
    """
    values = np.ascontiguousarray(values, dtype=np.float32) + np.float32(0)
    candidates = storage_candidates(values)
    best = min(candidates, key=lambda weight: (weight.stored_bytes, not weight.form.levels))
    return Choice(best, _explain(best, candidates))


def storage_candidates(values: Floats) -> list[StoredWeight]:
    """Return the matrix in every format that can hold it exactly, in the order of the formats."""
    split = split_levels(values)
    candidates = []
    for form in FORMATS.values():
        if not form.levels:
            candidates.append(StoredWeight(form, values))
        elif split is not None and form.encode(split[0]) is not None:
            candidates.append(StoredWeight(form, *split))
    return candidates


def split_levels(values: Floats) -> tuple[NDArray[np.int8], Floats] | None:
    """Write a matrix as levels -1, 0, +1 times positive scales, exactly.

    Args:
        values: float32 [rows, columns].

    Returns:
        Levels and scales: none when all are 1, one when all rows agree, else one per row. None
        when a row holds more than one magnitude beside 0.
    """
    magnitudes = np.abs(values)
    scale = magnitudes.max(axis=1)
    if ((magnitudes != scale[:, None]) & (magnitudes != 0)).any():
        return None
    levels = np.sign(values).astype(np.int8)
    used = np.unique(scale[scale > 0])
    if used.size == 0 or (used.size == 1 and used[0] == 1):
        return levels, no_scale()
    if used.size == 1:
        return levels, used
    scale[scale == 0] = used[0]
    return levels, scale


def _explain(best: StoredWeight, candidates: list[StoredWeight]) -> str:
    count = best.rows * best.columns
    zeros = 100.0 * (count - best.nonzero) / count
    if best.form.levels:
        scales = {0: "1", 1: "s"}.get(best.scale.size, "s of its row")
        levels = f"-{scales}, +{scales}" if best.nonzero == count else f"-{scales}, 0, +{scales}"
        what = f"only {levels}"
    else:
        what = "many magnitudes"
    others = sorted(
        (other.stored_bytes, other.form.name) for other in candidates if other is not best
    )
    runner_up = f", next {others[0][1]} with {others[0][0]}" if others else ""
    zero_text = f", {zeros:.1f} % zeros" if best.nonzero < count else ""
    return f"{best.form.name}: {what}{zero_text}{runner_up}"
