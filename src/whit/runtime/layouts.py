"""Layouts: which values of a matrix are stored, and where they stand; a coding stores them."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.bits import pack_bits
from whit.runtime.codings import Coding, Matrix, Profile, pack_codes, unpack_codes
from whit.runtime.data_section import DataReader

_BLOCK_GROUPS = 1 << 18
_BITS_OF_4 = np.arange(16)[:, None] >> np.arange(4) & 1


class Layout(Protocol):
    """One way to lay out a matrix [rows, columns].

    ``sparse`` says whether zeros are left out, ``alignment`` is the least alignment of the first
    byte (that of the coding may be larger).
    """

    name: ClassVar[str]
    sparse: ClassVar[bool]
    alignment: ClassVar[int]

    def size(self, coding: Coding, profile: Profile) -> int | None:
        """Return the bytes, or None when the matrix does not fit."""

    def encode(self, values: Matrix, coding: Coding, taps: int) -> bytes | None:
        """Return the bytes, or None when the values do not fit."""

    def decode(
        self, reader: DataReader, shape: tuple[int, int], coding: Coding, taps: int
    ) -> Matrix:
        """Return the values [rows, columns]."""


@dataclass(frozen=True)
class Dense:
    """Every value, row after row, without gaps."""

    name: ClassVar[str] = "dense"
    sparse: ClassVar[bool] = False
    alignment: ClassVar[int] = 1

    def size(self, coding: Coding, profile: Profile) -> int | None:
        """Return the bytes of all values."""
        return coding.size(profile.count, profile) if coding.fits(profile) else None

    def encode(self, values: Matrix, coding: Coding, taps: int) -> bytes | None:
        """Return all values."""
        return coding.encode(values.reshape(-1))

    def decode(
        self, reader: DataReader, shape: tuple[int, int], coding: Coding, taps: int
    ) -> Matrix:
        """Return all values."""
        return coding.decode(reader, shape[0] * shape[1]).reshape(shape)


@dataclass(frozen=True)
class Bitmask:
    """One bit a position, 1 for non-zero; then the non-zero values."""

    name: ClassVar[str] = "mask"
    sparse: ClassVar[bool] = True
    alignment: ClassVar[int] = 1

    def size(self, coding: Coding, profile: Profile) -> int | None:
        """Return the bytes of the mask, a gap, and the non-zero values."""
        return _sparse_size((profile.count + 7) // 8, coding, profile)

    def encode(self, values: Matrix, coding: Coding, taps: int) -> bytes | None:
        """Return the mask and the non-zero values."""
        mask = values != 0
        return _join(pack_bits(mask.reshape(-1)).tobytes(), coding, values[mask])

    def decode(
        self, reader: DataReader, shape: tuple[int, int], coding: Coding, taps: int
    ) -> Matrix:
        """Return the values, 0 where the mask is 0."""
        return _scatter(reader, reader.bits(shape[0] * shape[1]), coding).reshape(shape)


@dataclass(frozen=True)
class CompressedRows:
    """Non-zeros of each row: counts, then column numbers, then values.

    Counts and columns take 1, 2 or 4 bytes, the least that holds the number of columns.
    """

    name: ClassVar[str] = "csr"
    sparse: ClassVar[bool] = True
    alignment: ClassVar[int] = 4

    def size(self, coding: Coding, profile: Profile) -> int | None:
        """Return the bytes of counts, columns, a gap, and the non-zero values."""
        width = _index_dtype(profile.columns).itemsize
        return _sparse_size(width * (profile.rows + profile.nonzero), coding, profile)

    def encode(self, values: Matrix, coding: Coding, taps: int) -> bytes | None:
        """Return counts, columns and non-zero values."""
        mask = values != 0
        width = _index_dtype(values.shape[1])
        counts, columns = mask.sum(axis=1).astype(width), np.nonzero(mask)[1].astype(width)
        return _join(counts.tobytes() + columns.tobytes(), coding, values[mask])

    def decode(
        self, reader: DataReader, shape: tuple[int, int], coding: Coding, taps: int
    ) -> Matrix:
        """Return the values, 0 where nothing is stored.

        Raises:
            ArtifactError: counts or column numbers are impossible or not ascending.
        """
        rows, columns = shape
        width = _index_dtype(columns)
        counts = reader.array(rows, width).astype(width, copy=False)
        if (counts > columns).any():
            raise ArtifactError("a sparse weight has more values in a row than columns")
        index = reader.array(int(counts.sum(dtype=np.int64)), width).astype(width, copy=False)
        if (index >= columns).any():
            raise ArtifactError("a sparse weight has column numbers that do not ascend")
        starts = np.arange(0, rows * columns, columns, dtype=np.uint32)  # all below 2^28
        position = np.repeat(starts, counts.astype(np.intp)) + index.astype(np.uint32)
        if (position[1:] <= position[:-1]).any():
            raise ArtifactError("a sparse weight has column numbers that do not ascend")
        mask = np.zeros(rows * columns, dtype=np.bool_)
        mask[position] = True
        return _scatter(reader, mask, coding).reshape(shape)


@dataclass(frozen=True)
class TwoFour:
    """Two values of each group of four, their positions first.

    A row is taken with the channels fastest, so that a group of a convolution runs along them.
    """

    name: ClassVar[str] = "two_four"
    sparse: ClassVar[bool] = True
    alignment: ClassVar[int] = 1

    def size(self, coding: Coding, profile: Profile) -> int | None:
        """Return the bytes of half a byte and two values a group; None for three non-zeros."""
        if not profile.paired or not coding.fits(profile):
            return None
        groups = profile.rows * -(-profile.columns // 4)
        return _aligned((groups + 1) // 2, coding) + coding.size(2 * groups, profile)

    def encode(self, values: Matrix, coding: Coding, taps: int) -> bytes | None:
        """Return positions and values; None when a group has three non-zeros or more."""
        groups = _groups(values, taps)
        patterns = _patterns(groups)
        if (_COUNTS[patterns] > 2).any():
            return None
        pairs = cast(Matrix, np.take_along_axis(groups, _POSITIONS[patterns], axis=1).reshape(-1))
        return _join(pack_codes(_CODES[patterns], 4), coding, pairs)

    def decode(
        self, reader: DataReader, shape: tuple[int, int], coding: Coding, taps: int
    ) -> Matrix:
        """Return the values, 0 at positions that are not stored.

        Raises:
            ArtifactError: positions do not ascend, zeros are not where they have to be, or a
                value lies behind the end of its row.
        """
        rows, columns = shape
        width = -(-columns // 4) * 4
        codes = unpack_codes(reader, rows * width // 4, 4)
        if (codes & 3 >= codes >> 2).any():
            raise ArtifactError("positions of a 2:4 weight do not ascend")
        pairs = coding.decode(reader, 2 * codes.size).reshape(-1, 2)
        groups = np.zeros((codes.size, 4), dtype=pairs.dtype)
        for start in range(0, codes.size, _BLOCK_GROUPS):
            part = slice(start, start + _BLOCK_GROUPS)
            position = np.stack([codes[part] & 3, codes[part] >> 2], axis=1).astype(np.intp)
            np.put_along_axis(groups[part], position, pairs[part], axis=1)
        if (_CODES[_patterns(groups)] != codes).any() or _negative_zero(pairs):
            raise ArtifactError("zeros of a 2:4 weight are not stored at the lowest free positions")
        padded = groups.reshape(rows, width)
        if padded[:, columns:].any():
            raise ArtifactError("a 2:4 weight has a value behind the end of its row")
        return _from_channels_fastest(padded[:, :columns], taps)


def _two_four_tables() -> tuple[NDArray[np.uint8], NDArray[np.intp], NDArray[np.uint8]]:
    """Return for each pattern of non-zeros: their count, the positions stored, these as a code."""
    positions = np.empty((16, 2), dtype=np.intp)
    for pattern, bits in enumerate(_BITS_OF_4):
        order = sorted(range(4), key=lambda position: (1 - bits[position], position))
        positions[pattern] = sorted(order[:2])
    codes = (positions[:, 0] + 4 * positions[:, 1]).astype(np.uint8)
    return _BITS_OF_4.sum(axis=1).astype(np.uint8), positions, codes


_COUNTS, _POSITIONS, _CODES = _two_four_tables()


def holds_two_four(values: Matrix, taps: int = 1) -> bool:
    """Say whether every group of four holds at most two non-zero values.

    Args:
        values: matrix [rows, columns].
        taps: kernel height * width of a convolution, else 1.
    """
    if 2 * -(-values.shape[1] // 4) * values.shape[0] < np.count_nonzero(values):
        return False
    return not (_COUNTS[_patterns(_groups(values, taps))] > 2).any()


def _groups(values: Matrix, taps: int) -> Matrix:
    rows, columns = values.shape
    padded = np.zeros((rows, -(-columns // 4) * 4), dtype=values.dtype)
    kernels = values.reshape(rows, columns // taps, taps)
    padded[:, :columns] = kernels.transpose(0, 2, 1).reshape(rows, columns)
    return padded.reshape(-1, 4)


def _from_channels_fastest(values: Matrix, taps: int) -> Matrix:
    rows, columns = values.shape
    kernels = values.reshape(rows, taps, columns // taps)
    turned: Matrix = kernels.transpose(0, 2, 1).reshape(rows, columns)
    return turned


def _patterns(groups: Matrix) -> NDArray[np.uint8]:
    nonzero = (groups != 0).view(np.uint8)
    patterns: NDArray[np.uint8] = nonzero[:, 0].copy()
    for position in range(1, 4):
        patterns |= nonzero[:, position] << np.uint8(position)
    return patterns


def _negative_zero(values: Matrix) -> bool:
    return values.dtype.kind == "f" and bool((np.signbit(values) & (values == 0)).any())


def _index_dtype(columns: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u1" if columns < 1 << 8 else "<u2" if columns < 1 << 16 else "<u4")


def _aligned(size: int, coding: Coding) -> int:
    return size + -size % coding.alignment


def _sparse_size(index: int, coding: Coding, profile: Profile) -> int | None:
    stored = profile.nonzero_only()
    if not coding.fits(stored):
        return None
    return _aligned(index, coding) + coding.size(stored.count, stored)


def _join(index: bytes, coding: Coding, values: Matrix) -> bytes | None:
    payload = coding.encode(values)
    return None if payload is None else index + bytes(-len(index) % coding.alignment) + payload


def _scatter(reader: DataReader, mask: NDArray[np.bool_], coding: Coding) -> Matrix:
    values = coding.decode(reader, int(np.count_nonzero(mask)))
    if (values == 0).any():
        raise ArtifactError("a sparse weight stores a zero as a value")
    dense = np.zeros(mask.shape, dtype=values.dtype)
    dense[mask] = values
    return dense
