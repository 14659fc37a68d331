"""Operators that treat every number, or every channel, alone."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import FLOAT, NONE, SIGN, Activation, Record
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

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        for constants, granularity in (
            (self.scale, self.scale_granularity),
            (self.shift, self.shift_granularity),
        ):
            found = 0 if constants is None else constants.size
            expect(found == operand_count(granularity, source), f"{self.kind} does not fit")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Multiply, then add."""
        x = to_float(x)
        if self.scale is not None:
            x = x * spread(self.scale, self.scale_granularity, x)
        return x if self.shift is None else x + spread(self.shift, self.shift_granularity, x)


@dataclass(frozen=True, eq=False)
class Normalize(Affine):
    """y = (x - shift) / scale in float32, two roundings; a missing operand is left out."""

    kind: ClassVar[str] = "normalize"

    def run(self, x: Array, other: Array | None = None) -> Array:
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

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the same shape; integers keep their domain, signs become float32."""
        return Activation(source.shape, FLOAT if source.domain == SIGN else source.domain)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Take the maximum with 0."""
        x = to_float(x) if x.dtype == np.bool_ else x
        return np.maximum(x, x.dtype.type(0))


@dataclass(frozen=True)
class Sign(Plain):
    """y = +1 where x >= 0, else -1; so sign(0) = +1 and sign(NaN) = -1."""

    kind: ClassVar[str] = "sign"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record; there are no constants."""
        return cls()

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return signs of the same shape."""
        return Activation(source.shape, SIGN)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Compare with 0."""
        negative: Array = ~(to_float(x) >= 0)
        return negative
