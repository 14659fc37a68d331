"""Operators that lay the numbers of a sample out in another way."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import ABSENT, MAX_RANK, Activation, Record, product
from whit.runtime.operators.contract import Array, Plain, expect


@dataclass(frozen=True)
class Flatten(Plain):
    """Lay one sample out as a vector, last axis fastest."""

    kind: ClassVar[str] = "flatten"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record; there are no constants."""
        return cls()

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return a vector; the domain stays."""
        return Activation((source.elements,), source.domain)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Reshape to [batch, elements]."""
        return x.reshape(x.shape[0], -1)


@dataclass(frozen=True)
class Reshape(Plain):
    """Give one sample another shape of the same number of elements, last axis fastest."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "reshape"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: ``rows`` sizes as uint32 at ``first``."""
        expect(1 <= record.rows <= MAX_RANK, f"reshape to {record.rows} axes")
        expect(record.first != ABSENT, "a shape has no place")
        reader.seek(record.first)
        sizes: NDArray[np.generic] = reader.array(record.rows, "<u4")
        return cls(tuple(int(size) for size in sizes))

    def write(self, writer: DataWriter) -> Record:
        """Append the sizes."""
        sizes = np.array(self.shape, dtype="<u4")
        return Record(0, rows=len(self.shape), first=writer.append(sizes.tobytes(), 4))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the new shape; the domain stays."""
        expect(product(self.shape) == source.elements, "reshape changes the number of elements")
        return Activation(self.shape, source.domain)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Reshape to [batch, *shape]."""
        return x.reshape(x.shape[0], *self.shape)


@dataclass(frozen=True)
class Transpose(Plain):
    """Put the axes of a sample into another order.

    Args:
        order: axis j of the result is axis ``order[j]`` of the source.
    """

    order: tuple[int, ...]
    kind: ClassVar[str] = "transpose"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: the order in the size and stride fields."""
        order = (record.size_h, record.size_w, record.stride_h, record.stride_w)
        return cls(order[: len(source.shape)])

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        size_h, size_w, stride_h, stride_w = (*self.order, 0, 0, 0, 0)[:MAX_RANK]
        return Record(0, size_h=size_h, size_w=size_w, stride_h=stride_h, stride_w=stride_w)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the sizes in the new order; the domain stays."""
        axes = tuple(range(len(source.shape)))
        expect(tuple(sorted(self.order)) == axes, f"transpose puts {axes} into {self.order}")
        return Activation(tuple(source.shape[axis] for axis in self.order), source.domain)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Transpose behind the batch axis."""
        return x.transpose(0, *(axis + 1 for axis in self.order))
