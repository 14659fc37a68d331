"""Choosing a weight's storage from its values, by bytes.

Labels are not trusted: a weight is stored as one bit when it has two levels -s and +s, whatever
the technique that made it was called.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import WhitError
from whit.packing.format_reasons import explain, what_is_missing
from whit.packing.integer_grid import integer_grid, integer_grids
from whit.packing.value_profile import MatrixProfile
from whit.runtime.storage import FORMAT_CODES, FORMATS, Format
from whit.runtime.weights import StoredWeight, no_scale

__all__ = ["Candidate", "Choice", "choose_storage", "integer_grid", "storage_candidates"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """A stored weight and the reason in words.

    Attributes:
        weight: the weight in its format.
        reason: the format, what the values are, and the next smallest format.
        huffman_bytes: what the same values and scales would take with a canonical Huffman code
            (zeros included, with its table), a yardstick only; None for more than 4096 different
            floats.
    """

    weight: StoredWeight
    reason: str
    huffman_bytes: int | None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A format that holds the matrix exactly.

    Args:
        code: number of the format.
        form: the format.
        profile: the integers or floats to store.
        scale: the scales of the integers, float32 [0], [1] or [rows].
        stored_bytes: bytes of scales and values.
    """

    code: int
    form: Format
    profile: MatrixProfile
    scale: Floats
    stored_bytes: int

    @property
    def rank(self) -> tuple[int, bool, bool, int, int]:
        """Return what is compared: bytes, integers first, 2:4 first, code, fewer scales."""
        # A mask of a 2:4 matrix takes the same bytes, but says less to a kernel.
        free = self.form.layout.name != "two_four"
        return self.stored_bytes, not self.form.integers, free, self.code, self.scale.size

    def weight(self) -> StoredWeight:
        """Return the matrix in this format."""
        return StoredWeight(self.form, self.profile.values, self.scale, self.profile.taps)


def choose_storage(
    values: Floats,
    *,
    taps: int = 1,
    only: Collection[str] | None = None,
    never: Collection[str] = (),
    whole: bool = False,
) -> Choice:
    """Choose the format that takes the fewest bytes for a matrix.

    Decoding gives the very same float32 values; only -0.0 becomes +0.0.

    Args:
        values: float32 [rows, columns], finite.
        taps: kernel height * width when the rows are kernels of a convolution, else 1.
        only: names of formats to choose from; None for all.
        never: names of formats to leave out.
        whole: the values are integers of a matrix whose sums must be exact: only formats of
            integers without scales.

    Returns:
        The weight in the smallest format (of equals: integers, then 2:4, then the lowest code),
        and why.

    Raises:
        WhitError: a name is unknown, or none of the allowed formats holds these values.
    """
    _check_names([*(only or ()), *never])
    candidates = storage_candidates(values, taps=taps)
    allowed = [
        candidate
        for candidate in candidates
        if (only is None or candidate.form.name in only) and candidate.form.name not in never
    ]
    if whole:
        allowed = [c for c in allowed if c.form.integers and c.scale.size == 0]
    if not allowed and whole:
        raise WhitError(_why_not_whole(candidates))
    if not allowed:
        raise WhitError(_why_none(candidates, only, never))
    best, *others = sorted(allowed, key=lambda candidate: candidate.rank)
    histogram = best.profile.histogram
    huffman = None if histogram is None else histogram.huffman_bytes + 4 * best.scale.size
    runner_up = next((other for other in others if other.form is not best.form), None)
    following = None if runner_up is None else (runner_up.form.name, runner_up.stored_bytes)
    reason = explain(best.form, best.profile, best.scale.size, following)
    return Choice(best.weight(), reason, huffman)


def storage_candidates(values: Floats, *, taps: int = 1) -> list[Candidate]:
    """Return every format that can hold the matrix exactly, in the order of the formats.

    A format of integers occurs once for each grid that the values lie on: without scales, with
    one, with one per row. Arguments as in ``choose_storage``.
    """
    values = np.ascontiguousarray(values, dtype=np.float32) + np.float32(0)
    floats = [(MatrixProfile(values, taps), no_scale())]
    grids = [(MatrixProfile(grid.integers, taps), grid.scale) for grid in integer_grids(values)]
    candidates = []
    for code, form in FORMATS.items():
        for profile, scale in grids if form.integers else floats:
            size = form.size(profile.sizes)
            if size is not None:
                total = 4 * scale.size + size
                candidates.append(Candidate(code, form, profile, scale, total))
    return candidates


def _check_names(names: Collection[str]) -> None:
    unknown = sorted(set(names) - set(FORMAT_CODES))
    if unknown:
        raise WhitError(
            f"there is no weight format {', '.join(map(repr, unknown))}; "
            f"the formats are {', '.join(FORMAT_CODES)}"
        )


def _why_not_whole(candidates: list[Candidate]) -> str:
    names = [c.form.name for c in candidates if c.form.integers and c.scale.size == 0]
    return (
        "its sums are exact integers for the layer behind it, so its weights are stored as "
        f"integers; the formats that hold them are {', '.join(names)}: force or allow one of these"
    )


def _why_none(
    candidates: list[Candidate], only: Collection[str] | None, never: Collection[str]
) -> str:
    """Say what was asked for, why nothing of it fits, and what would fit in how many bytes."""
    floats = next(found.profile for found in candidates if found.form.name == "float32")
    grids = [found.profile for found in candidates if found.form.name == "planes"]
    allowed = [name for name in FORMAT_CODES if (only is None or name in only)]
    reasons = [
        f"{name} is forbidden"
        if name in never
        else what_is_missing(FORMATS[FORMAT_CODES[name]], floats, grids)
        for name in allowed
    ]
    sizes: dict[str, int] = {}
    for found in sorted(candidates, key=lambda candidate: candidate.rank):
        if found.form.name not in never:
            sizes.setdefault(found.form.name, found.stored_bytes)
    fitting = ", ".join(f"{name} ({size:,} bytes)" for name, size in sizes.items())
    rows, columns = floats.values.shape
    return (
        f"a weight of {rows} x {columns} was to be stored as {' or '.join(allowed) or 'nothing'}: "
        f"{'; '.join(reasons) or 'no format was named'}. Formats that fit: {fitting or 'none'}"
    )
