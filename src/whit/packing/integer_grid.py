"""Recognising weights that are integers times a scale, whatever made them.

A row is on a grid when float32(k) * s, rounded once, is exactly each of its values, for small
integers k. The scale is searched: with M the largest magnitude of the row and m that of its
integers, s lies within two float32 numbers of M / m. Candidates are thrown out by few values of
the row and the first that is left is checked on all of them; a value that it misses throws out
others. So values on no grid are rejected after a handful of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.runtime.weights import no_scale

Floats = NDArray[np.float32]
Integers = NDArray[np.int8] | NDArray[np.int16]

_LARGEST = (1 << 15) - 1
_LARGEST_IN_A_BYTE = 128
_LARGEST_OF_A_ROW = 2047
_NEIGHBOURS = np.array([0, -1, 1, -2, 2], dtype=np.int32)
_SAMPLE = 8
_BLOCK = 1 << 18
_BLOCK_ROWS = 512
_WIDE_ROWS = 32


@dataclass(frozen=True, eq=False)
class Grid:
    """Integers k [rows, columns] (int8 or int16) and scales (float32 [0], [1] or [rows])."""

    integers: Integers
    scale: Floats

    @property
    def width(self) -> int:
        """Return the bits of two's complement of the integers; 1 for nothing but -1, 0, +1."""
        low, high = int(self.integers.min()), int(self.integers.max())
        return 1 if low >= -1 and high <= 1 else 1 + max(high, ~low).bit_length()


def integer_grid(values: Floats) -> tuple[Integers, Floats] | None:
    """Write a matrix as integers times positive scales, exactly.

    The integers are the smallest that were found. One scale for all rows is preferred to one per
    row, and none to one, where this does not make the integers wider.

    Args:
        values: float32 [rows, columns], finite.

    Returns:
        Integers (int8, or int16 where one does not fit) and scales (none when all are 1, one, or
        one per row), or None. Magnitudes of integers up to 128 are found for any scale; up to
        32,767 where all rows share a scale, no scale is needed, or the scale of a row is its
        smallest magnitude or a power of two; else up to 2047.
    """
    grids = integer_grids(values)
    if not grids:
        return None
    best = min(grids, key=lambda grid: (grid.width, grid.scale.size))
    return best.integers, best.scale


def integer_grids(values: Floats) -> list[Grid]:
    """Return every grid that was found: without scales, with one, with one per row.

    Args:
        values: float32 [rows, columns], finite.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        return []
    scales = _row_scales(values, _level_scales)
    if scales is not None and (scales == scales[0]).all():
        return _without_doubles(values, [scales[:1]])  # two or three levels: nothing is smaller
    found = [scale for scale in (_shared_scale(values), scales) if scale is not None]
    if scales is None:
        per_row = _row_scales(values, _block_scales)
        found += [] if per_row is None else [per_row]
    return _without_doubles(values, found)


def _without_doubles(values: Floats, scales: list[Floats]) -> list[Grid]:
    grids: list[Grid] = []
    plain = np.ones(1, dtype=np.float32)
    if not any((scale == 1).all() for scale in scales) and _first_miss(values, plain[0]) is None:
        scales = [plain, *scales]
    for scale in scales:
        constant = scale.size > 1 and bool((scale == scale[0]).all())
        if constant and any(other.size == 1 and other[0] == scale[0] for other in scales):
            continue  # the shared scale says the same
        divisor = scale[:1] if (scale == scale[0]).all() else scale[:, None]
        integers = np.rint(values / divisor)
        small = integers.min() >= -128 and integers.max() <= 127
        stored: Integers = integers.astype(np.int8) if small else integers.astype(np.int16)
        grids.append(Grid(stored, no_scale() if (scale == 1).all() else divisor.reshape(-1)))
    return grids


def _row_scales(values: Floats, solve: Callable[[Floats], Floats | None]) -> Floats | None:
    """Return a scale [rows] for each row, block by block; None when one row has none.

    Rows of zeros take the first scale that there is.
    """
    rows = max(1, min(_BLOCK_ROWS, _BLOCK // values.shape[1]))
    blocks = []
    for start in range(0, values.shape[0], rows):
        block = np.abs(values[start : start + rows])
        scales = solve(block)
        if scales is None:
            return None
        blocks.append(scales)
    scale = np.concatenate(blocks)
    used = scale[scale > 0]
    scale[scale == 0] = used[0] if used.size else 1
    return scale


def _level_scales(magnitudes: Floats) -> Floats | None:
    scales: Floats = magnitudes.max(axis=1)
    return None if ((magnitudes != scales[:, None]) & (magnitudes != 0)).any() else scales


def _block_scales(magnitudes: Floats) -> Floats | None:
    """Return the scale [rows] with the smallest integers for each row, 0 for rows of zeros."""
    scales = _search_rows(magnitudes, 1, _LARGEST_IN_A_BYTE)
    unsolved = np.flatnonzero((scales == 0) & magnitudes.any(axis=1))
    for start in range(0, unsolved.size, _WIDE_ROWS):
        rows = unsolved[start : start + _WIDE_ROWS]
        scales[rows] = _search_rows(magnitudes[rows], _LARGEST_IN_A_BYTE + 1, _LARGEST_OF_A_ROW)
        for row in rows[scales[rows] == 0]:
            coarse = _first_that_fits(magnitudes[row], _coarse_scales(magnitudes[row]))
            if coarse is None:
                return None
            scales[row] = coarse
    return scales


def _search_rows(magnitudes: Floats, least: int, most: int) -> Floats:
    """Return the scale [rows] with the smallest m in least..most, 0 for rows that have none."""
    row, scale = _candidates(magnitudes.max(axis=1), least, most)
    for sample in _samples(magnitudes):
        fits = _fits(sample[row], scale)
        row, scale = row[fits], scale[fits]
    scales = np.zeros(magnitudes.shape[0], dtype=np.float32)
    while row.size:
        tried, first = np.unique(row, return_index=True)
        missed = ~_fits(magnitudes[tried], scale[first][:, None])
        solved = ~missed.any(axis=1)
        scales[tried[solved]] = scale[first][solved]
        witness = np.zeros_like(scales)
        witness[tried] = magnitudes[tried, missed.argmax(axis=1)]
        left = (scales[row] == 0) & _fits(witness[row], scale)
        row, scale = row[left], scale[left]
    return scales


def _candidates(tops: Floats, least: int, most: int) -> tuple[NDArray[np.intp], Floats]:
    """Return (row, scale) of all m * scale == top, rows ascending, then m ascending."""
    m = np.arange(least, most + 1, dtype=np.float32)
    near = (tops[:, None] / m).view(np.int32)[:, :, None] + _NEIGHBOURS
    scales = np.maximum(near, 0).view(np.float32)
    with np.errstate(all="ignore"):
        hits = (scales * m[:, None] == tops[:, None, None]) & (scales > 0)
    return np.nonzero(hits)[0], scales[hits]


def _samples(magnitudes: Floats) -> Iterator[Floats]:
    """Yield one value of each row at a time: the smallest that is not 0, then some others."""
    yield np.where(magnitudes > 0, magnitudes, np.float32(np.inf)).min(axis=1, initial=np.inf)
    for column in range(0, magnitudes.shape[1], -(-magnitudes.shape[1] // _SAMPLE)):
        yield magnitudes[:, column]


def _fits(values: Floats | np.float32, scale: Floats | np.float32) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        integers = np.rint(values / scale)
        fits: NDArray[np.bool_] = (integers * scale == values) & (np.abs(integers) <= _LARGEST)
    return fits


def _shared_scale(values: Floats) -> Floats | None:
    """Return the one scale [1] with the smallest integers for values that are not all 0."""
    top = np.maximum(values.max(), -values.min())[None]
    some = np.unique(np.abs(values.reshape(-1)[:: max(1, values.size >> 12)]))
    known = some[np.linspace(0, some.size - 1, min(some.size, 4 * _SAMPLE)).astype(np.intp)]
    for least, most in ((1, _LARGEST_IN_A_BYTE), (_LARGEST_IN_A_BYTE + 1, _LARGEST)):
        scales = _candidates(top, least, most)[1]
        for value in known:
            scales = scales[_fits(value, scales)]
        found = _first_that_fits(values, scales)
        if found is not None:
            return np.array([found], dtype=np.float32)
    return None


def _first_that_fits(values: Floats, scales: Floats) -> np.float32 | None:
    while scales.size:
        missed = _first_miss(values, scales[0])
        if missed is None:
            return np.float32(scales[0])
        scales = scales[1:][_fits(missed, scales[1:])]
    return None


def _first_miss(values: Floats, scale: np.float32) -> np.float32 | None:
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        fits = _fits(part, scale)
        if not fits.all():
            return np.float32(part[fits.argmin()])
    return None


def _coarse_scales(values: Floats) -> Floats:
    """Return the smallest magnitude, and the largest power of two that divides every value."""
    nonzero: Floats = np.abs(values[values != 0])
    smallest: Floats = nonzero.min(keepdims=True)
    mantissa, exponent = np.frexp(nonzero)
    whole = np.ldexp(mantissa, 24).astype(np.int64)
    lowest = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
    power = np.float32(np.ldexp(1.0, int((lowest + exponent - 24).min())))
    if nonzero.max() > np.float64(power) * _LARGEST:
        return smallest
    divisor = np.gcd.reduce((nonzero / power).astype(np.int64))
    return np.append(smallest, np.float32(power * divisor))
