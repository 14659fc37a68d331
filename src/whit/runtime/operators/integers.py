"""Operators that make whole numbers of few bits, or read them from a table."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    ABSENT,
    BYTE,
    CHANNEL,
    FLOAT,
    INTEGER_RANGES,
    NONE,
    SCALAR,
    Activation,
    Record,
    integer_domain,
)
from whit.runtime.operators.contract import (
    NUMPY_DTYPES,
    Array,
    Floats,
    Plain,
    expect,
    operand_count,
    read_floats,
    spread_channels,
    to_float,
    to_integer,
    write_operand,
)

MAX_SHIFT = 62


@dataclass(frozen=True)
class Quantize(Plain):
    """y = min(max(rint((x - shift) * factor), low), high), rint half to even; NaN gives low.

    Args:
        shift: float32 subtracted first.
        factor: float32, steps per unit.
        low: smallest result, a number of 16 bits.
        high: largest result, a number of 16 bits.
    """

    shift: float
    factor: float
    low: int
    high: int
    kind: ClassVar[str] = "quantize"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: shift and factor at ``first``, limits in rows and columns."""
        shift, factor = read_floats(record.first, 2, reader)
        return cls(float(shift), float(factor), _signed(record.rows), _signed(record.columns))

    def write(self, writer: DataWriter) -> Record:
        """Append shift and factor."""
        constants = np.array([self.shift, self.factor], dtype=np.float32)
        rows, columns = _unsigned(self.low), _unsigned(self.high)
        return Record(0, rows=rows, columns=columns, first=write_operand(constants, writer))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return whole numbers of the same shape."""
        return Activation(source.shape, integer_domain(self.low, self.high))

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Scale, round and limit in float32."""
        steps = np.rint((to_float(x) - np.float32(self.shift)) * np.float32(self.factor))
        steps = np.where(np.isnan(steps), np.float32(self.low), steps)
        return _limit(steps, self.low, self.high)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the steps as floats."""
        return 12 * source.elements


@dataclass(frozen=True, eq=False)
class Requantize(Plain):
    """y = min(max(rint((x * multiplier + offset) / 2^s), low), high), exactly, in 64 bits.

    rint rounds half to even, as torch does.

    Args:
        multipliers: int32 >= 0, [1] or one per channel.
        offsets: int64 [1] or one per channel, or None.
        exponent: s, 1 to 62.
        low: smallest result, a number of 16 bits.
        high: largest result, a number of 16 bits.
    """

    multipliers: NDArray[np.int32]
    offsets: NDArray[np.int64] | None
    exponent: int
    low: int
    high: int
    kind: ClassVar[str] = "requantize"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: multipliers at ``first``, offsets at ``second``."""
        expect(record.scale in (SCALAR, CHANNEL), "multipliers are one, or one per channel")
        expect(record.operand <= CHANNEL, "an offset is missing, one, or one per channel")
        multipliers = _read_integers(record.first, operand_count(record.scale, source), reader)
        offsets = None
        if record.operand:
            count = operand_count(record.operand, source)
            halves = _read_integers(record.second, 2 * count, reader)
            offsets = halves.astype("<i4").view("<i8").astype(np.int64, copy=False)
        low, high = _signed(record.rows), _signed(record.columns)
        return cls(multipliers, offsets, record.dilation, low, high)

    def write(self, writer: DataWriter) -> Record:
        """Append multipliers, then offsets."""
        first = writer.append(self.multipliers.astype("<i4").tobytes(), 4)
        second, operand = ABSENT, NONE
        if self.offsets is not None:
            second = writer.append(self.offsets.astype("<i8").tobytes(), 4)
            operand = _granularity(self.offsets)
        return Record(
            0,
            scale=_granularity(self.multipliers),
            operand=operand,
            rows=_unsigned(self.low),
            columns=_unsigned(self.high),
            first=first,
            second=second,
            dilation=self.exponent,
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return whole numbers of the same shape."""
        expect(source.domain != FLOAT, "requantize reads whole numbers, not float32")
        expect(1 <= self.exponent <= MAX_SHIFT, f"requantize shifts by {self.exponent}")
        expect(bool((self.multipliers >= 0).all()), "requantize has a negative multiplier")
        bound = 1 << self.exponent
        for constants in (self.multipliers, self.offsets):
            fits = constants is None or constants.size in (1, source.shape[0])
            expect(fits, "requantize does not fit its channels")
        if self.offsets is not None:
            bound += max(abs(int(self.offsets.min())), abs(int(self.offsets.max())))
        largest = max(map(abs, INTEGER_RANGES[source.domain]))
        bound += largest * int(self.multipliers.max())
        expect(bound < 1 << 63, "requantize can leave 64 bits: give smaller numbers")
        return Activation(source.shape, integer_domain(self.low, self.high))

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Multiply, add, divide with rounding half to even, and limit."""
        wide = to_integer(x).astype(np.int64)
        wide = wide * spread_channels(self.multipliers.astype(np.int64), wide)
        if self.offsets is not None:
            wide = wide + spread_channels(self.offsets, wide)
        whole = wide >> np.int64(self.exponent)
        rest, half = wide - (whole << np.int64(self.exponent)), np.int64(1 << (self.exponent - 1))
        whole += (rest > half) | ((rest == half) & (whole & 1 == 1))
        return _limit(whole, self.low, self.high)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of three copies in 64 bits."""
        return 24 * source.elements


@dataclass(frozen=True, eq=False)
class Lookup(Plain):
    """y = table[x] of a uint8 value; a larger x takes the last.

    Args:
        table: float32, 1 to 256 entries.
    """

    table: Floats
    kind: ClassVar[str] = "lookup"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: ``columns`` entries at ``first``."""
        expect(1 <= record.columns <= 256, f"a table has {record.columns} entries")
        return cls(read_floats(record.first, record.columns, reader))

    def write(self, writer: DataWriter) -> Record:
        """Append the table."""
        return Record(0, columns=self.table.size, first=write_operand(self.table, writer))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        expect(source.domain == BYTE, f"lookup reads uint8, not {source.domain}")
        expect(1 <= self.table.size <= 256, f"a table has {self.table.size} entries")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Take the entries."""
        found: Array = self.table[np.minimum(x, self.table.size - 1)]
        return found

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the indices as NumPy takes them."""
        return 8 * source.elements


def _limit(numbers: Array, low: int, high: int) -> Array:
    kind = numbers.dtype.type
    limited: Array = np.minimum(np.maximum(numbers, kind(low)), kind(high))
    return limited.astype(NUMPY_DTYPES[integer_domain(low, high)])


def _signed(field: int) -> int:
    return field - (1 << 32) if field >> 31 else field


def _unsigned(number: int) -> int:
    return number & 0xFFFFFFFF


def _granularity(constants: Array) -> int:
    return SCALAR if constants.size == 1 else CHANNEL


def _read_integers(offset: int, count: int, reader: DataReader) -> NDArray[np.int32]:
    expect(offset != ABSENT, "a constant has no place")
    reader.seek(offset)
    return reader.array(count, "<i4").astype(np.int32, copy=False)
