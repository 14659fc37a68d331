"""Operators that read two values."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import FLOAT, Activation, Record, product
from whit.runtime.operators.contract import Array, Plain, expect, second, to_float


@dataclass(frozen=True)
class Add(Plain):
    """y = source + other in float32; axes of size 1 of the other are repeated."""

    kind: ClassVar[str] = "add"
    inputs: ClassVar[int] = 2

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record; there are no constants."""
        return cls()

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the shape of ``source``."""
        shape = second(self.kind, other).shape
        fits = len(shape) == len(source.shape) and all(
            size in (1, length) for size, length in zip(shape, source.shape, strict=True)
        )
        expect(fits, f"{self.kind} cannot repeat {shape} to {source.shape}")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Add."""
        return to_float(x) + to_float(second(self.kind, other))


@dataclass(frozen=True)
class Multiply(Add):
    """y = source * other in float32; axes of size 1 of the other are repeated."""

    kind: ClassVar[str] = "multiply"

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Multiply."""
        return to_float(x) * to_float(second(self.kind, other))


@dataclass(frozen=True)
class Concat(Plain):
    """Put source and other one after the other.

    Args:
        axis: axis of one sample along which they follow one another, 0 for the channel.
    """

    axis: int
    kind: ClassVar[str] = "concat"
    inputs: ClassVar[int] = 2

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: the axis is ``size_h``."""
        return cls(record.size_h)

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0, size_h=self.axis)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the longer shape; equal domains stay, others become float32."""
        joined = second(self.kind, other)
        left, right = list(source.shape), list(joined.shape)
        expect(self.axis < len(left), f"concat has no axis {self.axis} in {source.shape}")
        expect(len(left) == len(right), f"concat joins {source.shape} and {joined.shape}")
        length = left[self.axis] + right[self.axis]
        left[self.axis] = right[self.axis] = length
        expect(left == right, f"concat joins {source.shape} and {joined.shape}")
        product(left)
        domain = source.domain if source.domain == joined.domain else FLOAT
        return Activation(tuple(left), domain)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Concatenate."""
        parts = [x, second(self.kind, other)]
        if parts[0].dtype != parts[1].dtype:
            parts = [to_float(part) for part in parts]
        return np.concatenate(parts, axis=self.axis + 1)
