"""Thresholds: where a value changes to its next sign or level, and in which direction."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    ABSENT,
    CHANNEL,
    FLOAT,
    SCALAR,
    SIGN,
    Activation,
    Record,
    integer_domain,
)
from whit.runtime.operators.contract import (
    NUMPY_DTYPES,
    Array,
    Plain,
    expect,
    operand_count,
    spread_channels,
    to_float,
    to_integer,
)

THRESHOLD_DTYPES = ("<f4", "<i1", "<i2", "<i4")


@dataclass(frozen=True, eq=False)
class Threshold(Plain):
    """y = +1 where x >= T, or where x <= T in flipped channels, else -1; NaN gives -1.

    T is -inf (float) or the smallest integer of its type for a channel that is constant: +1, or
    -1 when flipped. Integer thresholds compare integers, float32 thresholds compare float32.

    Args:
        thresholds: float32, int8, int16 or int32, [1] or one per channel.
        flipped: booleans of the same shape, or None when no channel is flipped.
    """

    thresholds: Array
    flipped: NDArray[np.bool_] | None = None
    kind: ClassVar[str] = "threshold"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: ``first`` thresholds, ``second`` flip bits."""
        return cls(*read_thresholds(record, reader, source, 1))

    def write(self, writer: DataWriter) -> Record:
        """Append thresholds, then flip bits."""
        first, code = write_thresholds(self.thresholds, writer)
        granularity = SCALAR if self.thresholds.size == 1 else CHANNEL
        second = write_flips(self.flipped, writer)
        return Record(0, weight_format=code, operand=granularity, first=first, second=second)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return signs of the same shape."""
        expect(self.thresholds.size in (1, source.shape[0]), "threshold does not fit")
        check_thresholds(self.kind, self.thresholds, self.flipped, source)
        return Activation(source.shape, SIGN)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Compare each channel with its threshold."""
        x = to_float(x) if self.thresholds.dtype.kind == "f" else to_integer(x)
        thresholds = spread_channels(self.thresholds, x)
        positive = x >= thresholds
        if self.flipped is not None:
            positive = np.where(spread_channels(self.flipped, x), x <= thresholds, positive)
        negative: Array = ~positive
        return negative


@dataclass(frozen=True, eq=False)
class Levels(Plain):
    """y = low + step * (number of thresholds that x reaches; in flipped channels, x <= T).

    Args:
        thresholds: [1, levels] or [channels, levels], 1 to 255 levels; int8, int16, int32 for
            whole numbers only, or float32.
        flipped: booleans [1] or [channels] like the thresholds, None when no channel is flipped.
        low: the lowest level, -128..127.
        step: distance between levels, 1 to 255.
    """

    thresholds: Array
    flipped: NDArray[np.bool_] | None
    low: int
    step: int
    kind: ClassVar[str] = "levels"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: ``first`` thresholds, ``second`` flip bits."""
        expect(record.size_h > 0, "levels has no thresholds")
        thresholds, flipped = read_thresholds(record, reader, source, record.size_h)
        return cls(
            thresholds.reshape(-1, record.size_h), flipped, record.pad_value, record.dilation
        )

    def write(self, writer: DataWriter) -> Record:
        """Append thresholds, then flip bits."""
        first, code = write_thresholds(self.thresholds, writer)
        return Record(
            0,
            weight_format=code,
            operand=SCALAR if len(self.thresholds) == 1 else CHANNEL,
            first=first,
            second=write_flips(self.flipped, writer),
            size_h=self.thresholds.shape[1],
            pad_value=self.low,
            dilation=self.step,
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return whole numbers of the same shape."""
        channels, levels = self.thresholds.shape
        check_thresholds(self.kind, self.thresholds, self.flipped, source)
        expect(channels in (1, source.shape[0]), "levels does not fit its channels")
        expect(1 <= levels <= 255 and 1 <= self.step <= 255, "levels has an impossible size")
        return Activation(source.shape, integer_domain(self.low, self.low + self.step * levels))

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Count the thresholds, one after the other."""
        x = to_float(x) if self.thresholds.dtype.kind == "f" else to_integer(x)
        count = np.zeros(x.shape, dtype=np.int32)
        for threshold in self.thresholds.T:
            spread = spread_channels(threshold, x)
            reached = x >= spread
            if self.flipped is not None:
                reached = np.where(spread_channels(self.flipped, x), x <= spread, reached)
            count += reached
        high = self.low + self.step * self.thresholds.shape[1]
        levels: Array = self.low + self.step * count
        return levels.astype(NUMPY_DTYPES[integer_domain(self.low, high)])

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of counts and comparisons."""
        return 12 * source.elements


def read_thresholds(
    record: Record, reader: DataReader, source: Activation, levels: int
) -> tuple[Array, NDArray[np.bool_] | None]:
    """Read ``levels`` thresholds for each channel, and the flip bits where there are any."""
    expect(record.weight_format < len(THRESHOLD_DTYPES), "unknown threshold type")
    expect(record.operand in (SCALAR, CHANNEL), "thresholds are one, or one per channel")
    expect(record.first != ABSENT, "thresholds have no place")
    count = operand_count(record.operand, source)
    reader.seek(record.first)
    thresholds = reader.array(count * levels, THRESHOLD_DTYPES[record.weight_format])
    if record.second == ABSENT:
        return thresholds, None
    reader.seek(record.second)
    flipped = reader.bits(count)
    expect(bool(flipped.any()), "flip bits stand where no channel is flipped")
    return thresholds, flipped


def write_thresholds(thresholds: Array, writer: DataWriter) -> tuple[int, int]:
    """Append thresholds; return their offset and the code of their type."""
    dtype = thresholds.dtype.newbyteorder("<")
    codes = {np.dtype(name): code for code, name in enumerate(THRESHOLD_DTYPES)}
    expect(dtype in codes, f"thresholds of type {thresholds.dtype} cannot be stored")
    return writer.append(thresholds.astype(dtype).tobytes(), dtype.itemsize), codes[dtype]


def write_flips(flipped: NDArray[np.bool_] | None, writer: DataWriter) -> int:
    """Append flip bits; return their offset, ABSENT when there are none."""
    if flipped is None:
        return ABSENT
    return writer.append(np.packbits(flipped, bitorder="little").tobytes())


def check_thresholds(
    kind: str, thresholds: Array, flipped: NDArray[np.bool_] | None, source: Activation
) -> None:
    """Check that thresholds compare like with like and that each channel has its flip bit."""
    integers = thresholds.dtype.kind == "i"
    expect(not integers or source.domain != FLOAT, f"{kind} has integer thresholds on floats")
    expect(flipped is None or len(flipped) == len(thresholds), f"{kind} has other flip bits")
