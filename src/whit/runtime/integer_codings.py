"""Codings of integers, from one bit to sixteen."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.bits import pack_bits
from whit.runtime.codings import Matrix, Profile, look_up, pack_codes, unpack_codes
from whit.runtime.data_section import DataReader

MAX_PLANES = 16
_POWERS_OF_3 = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
_DIGITS = (np.arange(243)[:, None] // _POWERS_OF_3 % 3 - 1).astype(np.int8)


@dataclass(frozen=True)
class Signs:
    """-1 and +1 in one bit, 1 for -1."""

    name: ClassVar[str] = "bits"
    bits: ClassVar[int] = 1
    integers: ClassVar[bool] = True
    largest: ClassVar[int] = 1
    alignment: ClassVar[int] = 1

    def fits(self, profile: Profile) -> bool:
        """Say whether all integers are -1 or +1."""
        return _within(profile, -1, 1) and profile.nonzero == profile.count

    def size(self, count: int, profile: Profile) -> int:
        """Return 1 bit a number."""
        return (count + 7) // 8

    def encode(self, values: Matrix) -> bytes | None:
        """Return the bits, or None when a number is not -1 or +1."""
        return pack_bits(values < 0).tobytes() if (np.abs(values) == 1).all() else None

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the signs."""
        return (1 - 2 * reader.bits(count).view(np.int8)).astype(np.int8)


@dataclass(frozen=True)
class Ternary:
    """-1, 0, +1 in two bits: 3, 0, 1; four numbers a byte, lowest bits first."""

    name: ClassVar[str] = "ternary"
    bits: ClassVar[int] = 2
    integers: ClassVar[bool] = True
    largest: ClassVar[int] = 1
    alignment: ClassVar[int] = 1

    def fits(self, profile: Profile) -> bool:
        """Say whether all integers are -1, 0 or +1."""
        return _within(profile, -1, 1)

    def size(self, count: int, profile: Profile) -> int:
        """Return 2 bits a number."""
        return (2 * count + 7) // 8

    def encode(self, values: Matrix) -> bytes | None:
        """Return the codes, or None when a number is not -1, 0 or +1."""
        return None if _outside(values, -1, 1) else pack_codes(_low_bits(values, 3), 2)

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the levels.

        Raises:
            ArtifactError: a code is 2, which stands for nothing.
        """
        codes = unpack_codes(reader, count, 2)
        if (codes == 2).any():
            raise ArtifactError("a ternary weight holds the forbidden code 2")
        return ((codes ^ 2).view(np.int8) - 2).astype(np.int8)


@dataclass(frozen=True)
class Ternary5:
    """-1, 0, +1, five to a byte: the sum of (number + 1) * 3^i, i = 0 for the first."""

    name: ClassVar[str] = "ternary5"
    bits: ClassVar[int] = 2
    integers: ClassVar[bool] = True
    largest: ClassVar[int] = 1
    alignment: ClassVar[int] = 1

    def fits(self, profile: Profile) -> bool:
        """Say whether all integers are -1, 0 or +1."""
        return _within(profile, -1, 1)

    def size(self, count: int, profile: Profile) -> int:
        """Return 1.6 bits a number."""
        return (count + 4) // 5

    def encode(self, values: Matrix) -> bytes | None:
        """Return the bytes, or None when a number is not -1, 0 or +1."""
        if _outside(values, -1, 1):
            return None
        digits = np.zeros((values.size + 4) // 5 * 5, dtype=np.uint8)
        digits[: values.size] = (values + 1).astype(np.uint8)
        total = digits[::5].copy()
        for place in range(1, 5):
            total += digits[place::5] * _POWERS_OF_3[place]
        return total.tobytes()

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the levels.

        Raises:
            ArtifactError: a byte is 243 or more, or digits behind the last number are not 0.
        """
        packed = reader.array((count + 4) // 5, "u1").astype(np.uint8, copy=False)
        if (packed >= 243).any():
            raise ArtifactError("a ternary5 weight holds a byte of 243 or more")
        if count % 5 and packed[-1] >= 3 ** (count % 5):
            raise ArtifactError("digits behind the last number of a ternary5 weight are not 0")
        levels = look_up(_DIGITS, packed)
        return levels.reshape(-1)[:count]


@dataclass(frozen=True)
class Int4:
    """-8..7 in two's complement, low half of the byte first."""

    name: ClassVar[str] = "int4"
    bits: ClassVar[int] = 4
    integers: ClassVar[bool] = True
    largest: ClassVar[int] = 8
    alignment: ClassVar[int] = 1

    def fits(self, profile: Profile) -> bool:
        """Say whether all integers are in -8..7."""
        return _within(profile, -8, 7)

    def size(self, count: int, profile: Profile) -> int:
        """Return 4 bits a number."""
        return (count + 1) // 2

    def encode(self, values: Matrix) -> bytes | None:
        """Return the halves, or None when a number is outside of -8..7."""
        return None if _outside(values, -8, 7) else pack_codes(_low_bits(values, 15), 4)

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the integers."""
        codes = unpack_codes(reader, count, 4)
        return ((codes ^ 8).view(np.int8) - 8).astype(np.int8)


@dataclass(frozen=True)
class Int8:
    """-128..127, one byte each."""

    name: ClassVar[str] = "int8"
    bits: ClassVar[int] = 8
    integers: ClassVar[bool] = True
    largest: ClassVar[int] = 128
    alignment: ClassVar[int] = 1

    def fits(self, profile: Profile) -> bool:
        """Say whether all integers are in -128..127."""
        return _within(profile, -128, 127)

    def size(self, count: int, profile: Profile) -> int:
        """Return 1 byte a number."""
        return count

    def encode(self, values: Matrix) -> bytes | None:
        """Return the bytes, or None when a number is outside of -128..127."""
        return None if _outside(values, -128, 127) else values.astype(np.int8).tobytes()

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the integers."""
        return reader.array(count, "u1").view(np.int8)


@dataclass(frozen=True)
class Planes:
    """Integers in n bits of two's complement, one bit plane after another, the sign plane first.

    n is the smallest number that holds all integers, at least 2 and at most 16.
    """

    name: ClassVar[str] = "planes"
    bits: ClassVar[int] = MAX_PLANES
    integers: ClassVar[bool] = True
    largest: ClassVar[int] = 1 << (MAX_PLANES - 1)
    alignment: ClassVar[int] = 1

    def fits(self, profile: Profile) -> bool:
        """Say whether all integers have at most 16 bits."""
        return plane_count(int(profile.low), int(profile.high)) <= MAX_PLANES

    def size(self, count: int, profile: Profile) -> int:
        """Return one byte, and 1 bit a number for each plane."""
        return 1 + plane_count(int(profile.low), int(profile.high)) * ((count + 7) // 8)

    def encode(self, values: Matrix) -> bytes | None:
        """Return n and its planes, or None when an integer needs more than 16 bits."""
        planes = planes_of(values)
        if planes > MAX_PLANES:
            return None
        parts = [bytes([planes])]
        for plane in reversed(range(planes)):
            parts.append(pack_bits((values.astype(np.int16) >> plane & 1) != 0).tobytes())
        return b"".join(parts)

    def decode(self, reader: DataReader, count: int) -> Matrix:
        """Return the integers, int8 for n up to 8, else int16.

        Raises:
            ArtifactError: n is outside of 2..16, or larger than the integers need.
        """
        planes = int(reader.array(1, "u1")[0])
        if not 2 <= planes <= MAX_PLANES:
            raise ArtifactError(f"a weight has {planes} bit planes, expected 2 to {MAX_PLANES}")
        codes = np.zeros(count, dtype=np.uint16)
        for plane in range(planes):  # the highest bit lands in bit 15, which carries the sign
            codes |= reader.bits(count).astype(np.uint16) << np.uint16(MAX_PLANES - 1 - plane)
        values: NDArray[np.int16] = codes.view(np.int16) >> (MAX_PLANES - planes)
        if planes_of(values) != planes:
            raise ArtifactError(f"a weight has {planes} bit planes where fewer hold its integers")
        return values.astype(np.int8) if planes <= 8 else values


def plane_count(low: int, high: int) -> int:
    """Return the bits of two's complement, at least 2, that hold all integers low..high."""
    return 1 + max(1, high.bit_length() if high > 0 else 0, (~low).bit_length() if low < 0 else 0)


def planes_of(values: Matrix) -> int:
    """Return the number of bit planes that hold integers."""
    return plane_count(int(values.min()), int(values.max()))


def _within(profile: Profile, low: int, high: int) -> bool:
    return low <= profile.low and profile.high <= high


def _outside(values: Matrix, low: int, high: int) -> bool:
    return bool(values.size) and bool(values.min() < low or values.max() > high)


def _low_bits(values: Matrix, mask: int) -> NDArray[np.uint8]:
    return values.astype(np.int8).view(np.uint8) & np.uint8(mask)
