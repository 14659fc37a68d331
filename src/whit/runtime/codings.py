"""What every coding of numbers is, and the packing of small numbers into bytes.

A coding of integers stores int8 (``planes`` above 8 bits: int16); the others store float32. There
is one way to write the same numbers, so a decoder refuses every other.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.data_section import DataReader

Matrix = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.int16]

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Profile:
    """What decides whether a matrix fits a format, and in how many bytes.

    Args:
        rows: rows of the matrix.
        columns: columns of the matrix.
        nonzero: values that are not 0.
        low: the smallest value.
        high: the largest value.
        entries: distinct floats, or any number above 257 for more; of integers not asked for.
        half: every value is a binary16 number.
        paired: every group of four holds at most two non-zero values.
    """

    rows: int
    columns: int
    nonzero: int
    low: float
    high: float
    entries: int = 258
    half: bool = False
    paired: bool = False

    @property
    def count(self) -> int:
        """Return the number of values."""
        return self.rows * self.columns

    def nonzero_only(self) -> "Profile":
        """Return the profile of the non-zero values in one row."""
        entries = self.entries - (self.nonzero < self.count)
        return replace(self, rows=1, columns=self.nonzero, entries=entries)


class Coding(Protocol):
    """One way to store numbers one after another.

    ``bits`` is the width of one number as a multiplier sees it, ``integers`` says whether the
    numbers are integers or float32, ``alignment`` is that of the first byte, ``largest`` the
    largest magnitude of an integer (0 for floats).
    """

    @property
    def name(self) -> str:
        """Return the name in ``docs/format.md``."""

    @property
    def bits(self) -> int:
        """Return the width of one number."""

    @property
    def largest(self) -> int:
        """Return the largest magnitude of an integer, 0 for floats."""

    integers: ClassVar[bool]
    alignment: ClassVar[int]

    def fits(self, profile: Profile) -> bool:
        """Say whether all values of a matrix can be stored."""

    def size(self, count: int, profile: Profile) -> int:
        """Return the bytes of ``count`` numbers that fit."""

    def encode(self, values: Matrix) -> bytes | None:
        """Return the bytes of numbers [n], or None when they do not fit."""

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return ``count`` numbers."""


def pack_codes(codes: NDArray[np.uint8], width: int) -> bytes:
    """Pack numbers below 2^width into bytes, lowest bits first.

    Args:
        codes: numbers [n].
        width: 1, 2, 4 or 8 bits.
    """
    each = 8 // width
    padded = np.zeros(-(-codes.size // each) * each, dtype=np.uint8)
    padded[: codes.size] = codes
    packed = padded[::each].copy()
    for place in range(1, each):
        packed |= padded[place::each] << np.uint8(width * place)
    return packed.tobytes()


def unpack_codes(reader: DataReader, count: int, width: int) -> NDArray[np.uint8]:
    """Read numbers of ``width`` bits, the inverse of ``pack_codes``.

    Raises:
        ArtifactError: too few bytes are left, or bits behind the last number are not 0.
    """
    each = 8 // width
    packed = reader.array(-(-count // each), "u1").astype(np.uint8, copy=False)
    if count % each and packed[-1] >> (count % each * width):
        raise ArtifactError("pad bits behind the last bit of a constant are not 0")
    codes = np.empty((packed.size, each), dtype=np.uint8)
    for place in range(each):
        codes[:, place] = packed >> np.uint8(width * place) & np.uint8((1 << width) - 1)
    return codes.reshape(-1)[:count]


def look_up(table: Matrix, codes: NDArray[np.uint8]) -> Matrix:
    """Return ``table[codes]``, at most 256 entries, in little memory."""
    # NumPy turns indices into 8 bytes each: block by block, a small file stays small.
    found = np.empty((codes.size, *table.shape[1:]), dtype=table.dtype)
    for start in range(0, codes.size, _BLOCK):
        found[start : start + _BLOCK] = table[codes[start : start + _BLOCK]]
    return found
