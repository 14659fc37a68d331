"""Codings of float32 values: as they are, in 16 bits, or by a code book."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.errors import ArtifactError
from whit.runtime.codings import Matrix, Profile, look_up, pack_codes, unpack_codes
from whit.runtime.data_section import DataReader


@dataclass(frozen=True)
class Float32:
    """4 bytes a number."""

    name: ClassVar[str] = "float32"
    bits: ClassVar[int] = 32
    integers: ClassVar[bool] = False
    largest: ClassVar[int] = 0
    alignment: ClassVar[int] = 4

    def fits(self, profile: Profile) -> bool:
        """Every float fits."""
        return True

    def size(self, count: int, profile: Profile) -> int:
        """Return 4 bytes a number."""
        return 4 * count

    def encode(self, values: Matrix) -> bytes | None:
        """Return the numbers, little-endian."""
        return np.ascontiguousarray(values, dtype="<f4").tobytes()

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the numbers."""
        return reader.floats(count)


@dataclass(frozen=True)
class Float16:
    """IEEE binary16, where this loses nothing."""

    name: ClassVar[str] = "float16"
    bits: ClassVar[int] = 16
    integers: ClassVar[bool] = False
    largest: ClassVar[int] = 0
    alignment: ClassVar[int] = 2

    def fits(self, profile: Profile) -> bool:
        """Say whether every value is a binary16 number."""
        return profile.half

    def size(self, count: int, profile: Profile) -> int:
        """Return 2 bytes a number."""
        return 2 * count

    def encode(self, values: Matrix) -> bytes | None:
        """Return the numbers, or None when one of them is no binary16 number."""
        with np.errstate(over="ignore", invalid="ignore"):
            half = np.ascontiguousarray(values, dtype="<f2")
        return half.tobytes() if (half.astype(np.float32) == values).all() else None

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the numbers as float32."""
        return reader.array(count, "<f2").astype(np.float32)


@dataclass(frozen=True)
class CodeBook:
    """At most 2^bits floats in ascending order, then the number of the entry of each value.

    Args:
        bits: 1, 2, 4 or 8.
    """

    bits: int
    integers: ClassVar[bool] = False
    largest: ClassVar[int] = 0
    alignment: ClassVar[int] = 4

    @property
    def name(self) -> str:
        """Return "codebook" and the bits of one number."""
        return f"codebook{self.bits}"

    def fits(self, profile: Profile) -> bool:
        """Say whether there are few enough distinct values."""
        return 1 <= profile.entries <= 1 << self.bits

    def size(self, count: int, profile: Profile) -> int:
        """Return 4 bytes, 4 an entry and ``bits`` a number."""
        return 4 + 4 * profile.entries + (self.bits * count + 7) // 8

    def encode(self, values: Matrix) -> bytes | None:
        """Return the book and the numbers, or None for too many values, none, or infinite ones."""
        floats = np.asarray(values, dtype=np.float32)
        if np.unique(floats[:: max(1, floats.size >> 12)]).size > 1 << self.bits:
            return None  # without sorting everything
        entries = np.unique(floats) + np.float32(0)
        if not 1 <= entries.size <= 1 << self.bits or not np.isfinite(entries).all():
            return None
        codes = np.searchsorted(entries, floats).astype(np.uint8)
        book = np.array([entries.size - 1], "<u4").tobytes() + entries.astype("<f4").tobytes()
        return bytes(book) + pack_codes(codes, self.bits)

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the values.

        Raises:
            ArtifactError: the book is too long, not ascending, not finite, or not all of it used.
        """
        last = int(reader.array(1, "<u4")[0])
        if last >= 1 << self.bits:
            raise ArtifactError(f"the head of a code book with {self.bits} bits is {last}")
        entries = reader.floats(last + 1)
        if not np.isfinite(entries).all() or (np.diff(entries) <= 0).any():
            raise ArtifactError("the entries of a code book are not finite and ascending")
        if (np.signbit(entries) & (entries == 0)).any():
            raise ArtifactError("a code book holds -0.0, which is stored as +0.0")
        codes = unpack_codes(reader, count, self.bits)
        if (codes > last).any():
            raise ArtifactError(f"a code is above {last}, the last entry of its code book")
        if np.unique(codes).size != last + 1:
            raise ArtifactError("a code book holds entries that are not used")
        return look_up(entries, codes)
