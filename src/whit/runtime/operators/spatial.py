"""Operators that move or choose numbers without arithmetic on them."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from whit.runtime.backends import BinaryGemm
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import ABSENT, FLOAT, MAX_RANK, Activation, Record, product
from whit.runtime.operators.contract import (
    Array,
    Plain,
    expect,
    keeps_sign,
    read_operand,
    to_float,
    write_operand,
)


@dataclass(frozen=True)
class MaxPool2d(Plain):
    """Maximum over windows of [channel, height, width]; the padding never wins.

    Args:
        size: height and width of the window.
        stride: rows and columns between windows.
        pad: rows and columns added on each side, at most half the window.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int] = (0, 0)
    kind: ClassVar[str] = "max_pool2d"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from the size, stride and pad fields."""
        size, stride = (record.size_h, record.size_w), (record.stride_h, record.stride_w)
        return cls(size, stride, (record.pad_h, record.pad_w))

    def write(self, writer: DataWriter) -> Record:
        """Append nothing; everything is in the record."""
        (size_h, size_w), (stride_h, stride_w), (pad_h, pad_w) = self.size, self.stride, self.pad
        return Record(
            0,
            size_h=size_h,
            size_w=size_w,
            stride_h=stride_h,
            stride_w=stride_w,
            pad_h=pad_h,
            pad_w=pad_w,
        )

    def result(self, source: Activation) -> Activation:
        """Return [channel, rows, columns] of windows; the domain stays."""
        expect(len(source.shape) == 3, "max_pool2d needs [channel, height, width]")
        sides = []
        for length, size, stride, pad in zip(
            source.shape[1:], self.size, self.stride, self.pad, strict=True
        ):
            expect(size > 0 and stride > 0 and 2 * pad <= size, "max_pool2d has a bad window")
            expect(length + 2 * pad >= size, "max_pool2d has a window larger than its input")
            sides.append((length + 2 * pad - size) // stride + 1)
        return Activation((source.shape[0], *sides), source.domain)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Take the maximum of the shifted images; of signs, -1 only where all are -1."""
        (size_h, size_w), (stride_h, stride_w), (pad_h, pad_w) = self.size, self.stride, self.pad
        sides = [
            (length + 2 * pad - size) // stride + 1
            for length, size, stride, pad in zip(
                x.shape[2:], self.size, self.stride, self.pad, strict=True
            )
        ]
        if pad_h or pad_w:
            lowest = {"f": -np.inf, "i": np.iinfo(np.int32).min, "u": 0, "b": True}[x.dtype.kind]
            x = pad_images(x, (pad_h, pad_w, pad_h, pad_w), lowest)
        larger = np.logical_and if x.dtype == np.bool_ else np.maximum
        best: Array | None = None
        for row in range(size_h):
            for column in range(size_w):
                last = (row + stride_h * (sides[0] - 1) + 1, column + stride_w * (sides[1] - 1) + 1)
                part = x[:, :, row : last[0] : stride_h, column : last[1] : stride_w]
                best = part if best is None else larger(best, part)
        return x if best is None else best


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

    def result(self, source: Activation) -> Activation:
        """Return a vector; the domain stays."""
        return Activation((source.elements,), source.domain)

    def run(self, x: Array, product: BinaryGemm) -> Array:
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
        reader.seek(record.first)
        sizes: NDArray[np.generic] = reader.array(record.rows, "<u4")
        return cls(tuple(int(size) for size in sizes))

    def write(self, writer: DataWriter) -> Record:
        """Append the sizes."""
        sizes = np.array(self.shape, dtype="<u4")
        return Record(0, rows=len(self.shape), first=writer.append(sizes.tobytes(), 4))

    def result(self, source: Activation) -> Activation:
        """Return the new shape; the domain stays."""
        expect(product(self.shape) == source.elements, "reshape changes the number of elements")
        return Activation(self.shape, source.domain)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Reshape to [batch, *shape]."""
        return x.reshape(x.shape[0], *self.shape)


@dataclass(frozen=True)
class Pad2d(Plain):
    """Surround [channel, height, width] with a constant.

    Args:
        pads: rows on top, columns left, rows below, columns right.
        value: the constant; signs padded with +1 or -1 stay signs.
    """

    pads: tuple[int, int, int, int]
    value: float
    kind: ClassVar[str] = "pad2d"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: pad fields top and left, size fields below and right."""
        value = read_operand(record.first, 1, reader)
        pads = (record.pad_h, record.pad_w, record.size_h, record.size_w)
        return cls(pads, float("nan") if value is None else float(value[0]))

    def write(self, writer: DataWriter) -> Record:
        """Append the value."""
        first = write_operand(np.array([self.value], dtype=np.float32), writer)
        top, left, below, right = self.pads
        return Record(
            0, first=first, second=ABSENT, pad_h=top, pad_w=left, size_h=below, size_w=right
        )

    def result(self, source: Activation) -> Activation:
        """Return the larger shape: signs where the value keeps them, else float32."""
        expect(len(source.shape) == 3, "pad2d needs [channel, height, width]")
        channels, height, width = source.shape
        top, left, below, right = self.pads
        shape = (channels, height + top + below, width + left + right)
        product(shape)
        return Activation(shape, source.domain if keeps_sign(source, self.value) else FLOAT)

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Copy into a larger array."""
        if x.dtype == np.bool_ and abs(self.value) == 1:
            return pad_images(x, self.pads, self.value < 0)
        return pad_images(to_float(x), self.pads, self.value)


def pad_images(x: Array, pads: tuple[int, int, int, int], value: float) -> Array:
    """Surround [batch, channel, height, width] with a value: top, left, below, right."""
    top, left, below, right = pads
    height, width = x.shape[2:]
    shape = (*x.shape[:2], height + top + below, width + left + right)
    padded = np.full(shape, value, dtype=x.dtype)
    padded[:, :, top : top + height, left : left + width] = x
    return padded
