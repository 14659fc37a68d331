"""Weight formats: how the values of one weight matrix lie in the file, both directions.

A format stores either float32 values, or levels -1, 0, +1 with float32 scales beside them (none,
one, or one per row). A new format is one class here and one entry in ``FORMATS``.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.bits import pack_bits
from whit.runtime.data_section import DataReader

Matrix = NDArray[np.float32] | NDArray[np.int8]


class Format(Protocol):
    """One way to store a matrix [rows, columns].

    ``bits`` is the width of one value as a multiplier sees it, ``levels`` says whether the values
    are levels -1, 0, +1 (int8) or float32, ``alignment`` is that of the first stored byte.
    """

    name: ClassVar[str]
    bits: ClassVar[int]
    levels: ClassVar[bool]
    alignment: ClassVar[int]

    def encode(self, values: Matrix) -> bytes | None:
        """Return the stored bytes, or None when these values do not fit the format."""

    def decode(self, reader: DataReader, rows: int, columns: int) -> Matrix:
        """Return the values [rows, columns] read from the data section."""


@dataclass(frozen=True)
class DenseFloat:
    """Every value as float32, row-major."""

    name: ClassVar[str] = "float32"
    bits: ClassVar[int] = 32
    levels: ClassVar[bool] = False
    alignment: ClassVar[int] = 4

    def encode(self, values: Matrix) -> bytes | None:
        """Return 4 bytes a value."""
        return np.ascontiguousarray(values, dtype="<f4").tobytes()

    def decode(self, reader: DataReader, rows: int, columns: int) -> Matrix:
        """Return the values [rows, columns]."""
        return reader.floats(rows * columns).reshape(rows, columns)


@dataclass(frozen=True)
class DenseBits:
    """One bit a value, 1 for -1, row-major without gaps between rows."""

    name: ClassVar[str] = "bits"
    bits: ClassVar[int] = 1
    levels: ClassVar[bool] = True
    alignment: ClassVar[int] = 1

    def encode(self, values: Matrix) -> bytes | None:
        """Return 1 bit a value; None when a value is 0."""
        return None if (values == 0).any() else pack_bits(values.reshape(-1) < 0).tobytes()

    def decode(self, reader: DataReader, rows: int, columns: int) -> Matrix:
        """Return the levels [rows, columns]."""
        return _signs(reader, rows * columns).reshape(rows, columns)


@dataclass(frozen=True)
class DenseTernary:
    """Two bits a value: 0 for 0, 1 for +1, 3 for -1; four values a byte, lowest bits first."""

    name: ClassVar[str] = "ternary"
    bits: ClassVar[int] = 2
    levels: ClassVar[bool] = True
    alignment: ClassVar[int] = 1

    def encode(self, values: Matrix) -> bytes | None:
        """Return 2 bits a value."""
        flat = values.reshape(-1)
        return pack_bits(np.stack([flat != 0, flat < 0], axis=-1).reshape(-1)).tobytes()

    def decode(self, reader: DataReader, rows: int, columns: int) -> Matrix:
        """Return the levels [rows, columns].

        Raises:
            ArtifactError: a pair of bits is 2, which stands for nothing.
        """
        pairs = reader.bits(2 * rows * columns).reshape(-1, 2)
        if (pairs[:, 1] & ~pairs[:, 0]).any():
            raise ArtifactError("a ternary weight holds the forbidden code 2")
        levels = pairs[:, 0].astype(np.int8) - 2 * pairs[:, 1].astype(np.int8)
        return levels.reshape(rows, columns)


@dataclass(frozen=True)
class Bitmask:
    """One bit a position, 1 for non-zero; then the non-zero values in row-major order."""

    name: ClassVar[str]
    bits: ClassVar[int]
    levels: ClassVar[bool]
    alignment: ClassVar[int]

    def encode(self, values: Matrix) -> bytes | None:
        """Return the mask and the non-zero values, aligned as the reader expects."""
        flat = values.reshape(-1)
        mask = pack_bits(flat != 0).tobytes()
        return _pad(mask, self.levels) + _encode_values(flat[flat != 0], self.levels)

    def decode(self, reader: DataReader, rows: int, columns: int) -> Matrix:
        """Return the values [rows, columns]."""
        mask = reader.bits(rows * columns)
        return _scatter(reader, mask.reshape(rows, columns), self.levels)


@dataclass(frozen=True)
class BitmaskFloat(Bitmask):
    """Bitmask with float32 values."""

    name: ClassVar[str] = "mask_float32"
    bits: ClassVar[int] = 32
    levels: ClassVar[bool] = False
    alignment: ClassVar[int] = 4


@dataclass(frozen=True)
class BitmaskSigns(Bitmask):
    """Bitmask with one sign bit a non-zero value."""

    name: ClassVar[str] = "mask_signs"
    bits: ClassVar[int] = 2
    levels: ClassVar[bool] = True
    alignment: ClassVar[int] = 1


@dataclass(frozen=True)
class CompressedRows:
    """Non-zeros of each row: counts, then column numbers, then values.

    Counts and columns take 1, 2 or 4 bytes, the least that holds the number of columns.
    """

    name: ClassVar[str]
    bits: ClassVar[int]
    levels: ClassVar[bool]
    alignment: ClassVar[int]

    def encode(self, values: Matrix) -> bytes | None:
        """Return counts, columns and non-zero values, aligned as the reader expects."""
        mask = values != 0
        width = _index_dtype(values.shape[1])
        counts, columns = mask.sum(axis=1).astype(width), np.nonzero(mask)[1].astype(width)
        index = counts.tobytes() + columns.tobytes()
        return _pad(index, self.levels) + _encode_values(values[mask], self.levels)

    def decode(self, reader: DataReader, rows: int, columns: int) -> Matrix:
        """Return the values [rows, columns].

        Raises:
            ArtifactError: counts or column numbers are impossible or not ascending.
        """
        width = _index_dtype(columns)
        counts = reader.array(rows, width).astype(np.int64)
        if (counts > columns).any():
            raise ArtifactError("a sparse weight has more values in a row than columns")
        index = reader.array(int(counts.sum()), width).astype(np.int64)
        row = np.repeat(np.arange(rows), counts)
        position = row * columns + index
        if (index >= columns).any() or (np.diff(position) <= 0).any():
            raise ArtifactError("a sparse weight has column numbers that do not ascend")
        mask = np.zeros(rows * columns, dtype=np.bool_)
        mask[position] = True
        return _scatter(reader, mask.reshape(rows, columns), self.levels)


@dataclass(frozen=True)
class CompressedRowsFloat(CompressedRows):
    """Compressed rows with float32 values."""

    name: ClassVar[str] = "csr_float32"
    bits: ClassVar[int] = 32
    levels: ClassVar[bool] = False
    alignment: ClassVar[int] = 4


@dataclass(frozen=True)
class CompressedRowsSigns(CompressedRows):
    """Compressed rows with one sign bit a non-zero value."""

    name: ClassVar[str] = "csr_signs"
    bits: ClassVar[int] = 2
    levels: ClassVar[bool] = True
    alignment: ClassVar[int] = 4


# Code in the record -> format. Codes never change their meaning; the earlier wins a tie in bytes.
FORMATS: dict[int, Format] = {
    0: DenseFloat(),
    1: DenseBits(),
    2: DenseTernary(),
    3: BitmaskFloat(),
    4: BitmaskSigns(),
    5: CompressedRowsFloat(),
    6: CompressedRowsSigns(),
}
FORMAT_CODES: dict[str, int] = {form.name: code for code, form in FORMATS.items()}


def _index_dtype(columns: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u1" if columns < 1 << 8 else "<u2" if columns < 1 << 16 else "<u4")


def _pad(index: bytes, levels: bool) -> bytes:
    return index if levels else index + bytes(-len(index) % 4)


def _encode_values(values: Matrix, levels: bool) -> bytes:
    if levels:
        return pack_bits(values < 0).tobytes()
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def _signs(reader: DataReader, count: int) -> NDArray[np.int8]:
    return (1 - 2 * reader.bits(count).astype(np.int8)).astype(np.int8)


def _scatter(reader: DataReader, mask: NDArray[np.bool_], levels: bool) -> Matrix:
    count = int(mask.sum())
    values: Matrix = _signs(reader, count) if levels else reader.floats(count)
    if (values == 0).any():
        raise ArtifactError("a sparse weight stores a zero as a value")
    dense = np.zeros(mask.shape, dtype=values.dtype)
    dense[mask] = values
    return dense
