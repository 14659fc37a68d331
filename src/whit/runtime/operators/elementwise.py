"""Operators that treat every number, or every channel, alone."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from whit.runtime.backends import BinaryGemm
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    ABSENT,
    CHANNEL,
    FLOAT,
    INTEGER,
    NONE,
    SCALAR,
    SIGN,
    Activation,
    Record,
)
from whit.runtime.operators.contract import (
    Array,
    Floats,
    Plain,
    expect,
    operand_count,
    read_operand,
    spread,
    to_float,
    write_operand,
)

THRESHOLD_DTYPES = ("<f4", "<i1", "<i2", "<i4")


@dataclass(frozen=True, eq=False)
class Affine(Plain):
    """y = x * scale + shift in float32, two roundings; a missing operand is left out.

    Args:
        scale: float32 constants, or None.
        shift: float32 constants, or None.
        scale_granularity: NONE, SCALAR, CHANNEL (axis 1) or FEATURE.
        shift_granularity: likewise.
    """

    scale: Floats | None
    shift: Floats | None
    scale_granularity: int = NONE
    shift_granularity: int = NONE
    kind: ClassVar[str] = "affine"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: ``scale``/``first`` hold scale, ``operand``/``second`` shift."""
        scale = read_operand(record.first, operand_count(record.scale, source), reader)
        shift = read_operand(record.second, operand_count(record.operand, source), reader)
        return cls(scale, shift, record.scale, record.operand)

    def write(self, writer: DataWriter) -> Record:
        """Append scale, then shift."""
        first, second = write_operand(self.scale, writer), write_operand(self.shift, writer)
        return Record(
            0,
            scale=self.scale_granularity,
            operand=self.shift_granularity,
            first=first,
            second=second,
        )

    def result(self, source: Activation) -> Activation:
        """Return float32 of the same shape."""
        for constants, granularity in (
            (self.scale, self.scale_granularity),
            (self.shift, self.shift_granularity),
        ):
            found = 0 if constants is None else constants.size
            expect(found == operand_count(granularity, source), f"{self.kind} does not fit")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Multiply, then add."""
        x = to_float(x)
        if self.scale is not None:
            x = x * spread(self.scale, self.scale_granularity, x)
        return x if self.shift is None else x + spread(self.shift, self.shift_granularity, x)


@dataclass(frozen=True, eq=False)
class Normalize(Affine):
    """y = (x - shift) / scale in float32, two roundings; a missing operand is left out."""

    kind: ClassVar[str] = "normalize"

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Subtract, then divide."""
        x = to_float(x)
        if self.shift is not None:
            x = x - spread(self.shift, self.shift_granularity, x)
        return x if self.scale is None else x / spread(self.scale, self.scale_granularity, x)


@dataclass(frozen=True)
class Relu(Plain):
    """y = max(x, 0); NaN stays NaN."""

    kind: ClassVar[str] = "relu"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record; there are no constants."""
        return cls()

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0)

    def result(self, source: Activation) -> Activation:
        """Return the same shape; integers stay integers."""
        return Activation(source.shape, INTEGER if source.domain == INTEGER else FLOAT)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Take the maximum with 0."""
        x = x if x.dtype == np.int32 else to_float(x)
        return np.maximum(x, x.dtype.type(0))


@dataclass(frozen=True)
class Sign(Relu):
    """y = +1 where x >= 0, else -1; so sign(0) = +1 and sign(NaN) = -1."""

    kind: ClassVar[str] = "sign"

    def result(self, source: Activation) -> Activation:
        """Return signs of the same shape."""
        return Activation(source.shape, SIGN)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Compare with 0."""
        negative: Array = ~(to_float(x) >= 0)
        return negative


@dataclass(frozen=True, eq=False)
class Threshold(Plain):
    """y = +1 where x >= T, or where x <= T in flipped channels, else -1.

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
        expect(record.weight_format < len(THRESHOLD_DTYPES), "unknown threshold type")
        expect(record.operand in (SCALAR, CHANNEL), "thresholds are one, or one per channel")
        count = operand_count(record.operand, source)
        reader.seek(record.first)
        thresholds = reader.array(count, THRESHOLD_DTYPES[record.weight_format])
        if record.second == ABSENT:
            return cls(thresholds)
        reader.seek(record.second)
        return cls(thresholds, reader.bits(count))

    def write(self, writer: DataWriter) -> Record:
        """Append thresholds, then flip bits."""
        dtype = self.thresholds.dtype.newbyteorder("<")
        codes = {np.dtype(name): code for code, name in enumerate(THRESHOLD_DTYPES)}
        first = writer.append(self.thresholds.astype(dtype).tobytes(), dtype.itemsize)
        second = ABSENT
        if self.flipped is not None:
            packed = np.packbits(self.flipped, bitorder="little")
            second = writer.append(packed.tobytes())
        granularity = SCALAR if self.thresholds.size == 1 else CHANNEL
        return Record(
            0, weight_format=codes[dtype], operand=granularity, first=first, second=second
        )

    def result(self, source: Activation) -> Activation:
        """Return signs of the same shape."""
        expect(self.thresholds.size in (1, source.shape[0]), "threshold does not fit")
        integers = self.thresholds.dtype.kind == "i"
        expect(not integers or source.domain == INTEGER, "integer thresholds on other numbers")
        return Activation(source.shape, SIGN)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Compare each channel with its threshold."""
        x = x if self.thresholds.dtype.kind == "i" else to_float(x)
        shape = (-1,) + (1,) * (x.ndim - 2)
        thresholds = self.thresholds.reshape(shape)
        positive = x >= thresholds
        if self.flipped is not None:
            positive = np.where(self.flipped.reshape(shape), x <= thresholds, positive)
        negative: Array = ~positive
        return negative
