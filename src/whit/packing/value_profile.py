"""What the values of a matrix are like: how many differ, which formats could hold them."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from whit.packing.huffman import coded_bytes
from whit.runtime.codings import Matrix, Profile
from whit.runtime.layouts import holds_two_four

_MANY = 4096


@dataclass(frozen=True, eq=False)
class Histogram:
    """The distinct values of a matrix, ascending, and how often each occurs."""

    values: Matrix
    counts: NDArray[np.int64]

    @property
    def huffman_bytes(self) -> int:
        """Return the size of these values in a canonical Huffman code, its table included."""
        if self.values.dtype.kind == "f":
            return coded_bytes(self.counts, 4)
        small = self.values.min() >= -128 and self.values.max() <= 127
        return coded_bytes(self.counts, 1 if small else 2)


@dataclass(frozen=True, eq=False)
class MatrixProfile:
    """The facts about one matrix from which formats are chosen, each found once.

    Args:
        values: integers or float32 [rows, columns], finite.
        taps: kernel height * width of a convolution, else 1.
    """

    values: Matrix
    taps: int = 1

    @cached_property
    def histogram(self) -> Histogram | None:
        """Return the distinct values, or None for more than 4096 floats."""
        flat = self.values.reshape(-1)
        if flat.dtype.kind == "f":
            sample = flat[:: max(1, flat.size >> 14)]
            if np.unique(sample).size > _MANY:
                return None  # without sorting everything
        values, counts = np.unique(flat, return_counts=True)
        if flat.dtype.kind == "f" and values.size > _MANY:
            return None
        return Histogram(cast(Matrix, values), counts)

    @cached_property
    def sizes(self) -> Profile:
        """Return what the formats need to tell their sizes."""
        floats = self.values.dtype.kind == "f"
        distinct = _MANY + 1
        if floats and self.histogram is not None:
            distinct = self.histogram.values.size
        return Profile(
            rows=int(self.values.shape[0]),
            columns=int(self.values.shape[1]),
            nonzero=int(np.count_nonzero(self.values)),
            low=float(self.values.min()),
            high=float(self.values.max()),
            entries=distinct,
            half=floats and _all_half(self.values.reshape(-1)),
            paired=holds_two_four(self.values, self.taps),
        )


def _all_half(flat: Matrix) -> bool:
    with np.errstate(over="ignore"):
        for part in (flat[:1024], flat):
            if (part.astype(np.float16) != part).any():
                return False
    return True
