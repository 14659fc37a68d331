"""A border of one number around images."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import ABSENT, FLOAT, Activation, Record, product
from whit.runtime.operators.contract import (
    Array,
    Plain,
    domain_of,
    expect,
    holds,
    read_floats,
    to_float,
    write_operand,
)


@dataclass(frozen=True)
class Pad2d(Plain):
    """Surround [channel, height, width] with a constant.

    Args:
        pads: rows on top, columns left, rows below, columns right.
        value: the constant; a domain that holds it stays (signs: +1 and -1).
    """

    pads: tuple[int, int, int, int]
    value: float
    kind: ClassVar[str] = "pad2d"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: pad fields top and left, size fields below and right."""
        value = read_floats(record.first, 1, reader)
        pads = (record.pad_h, record.pad_w, record.size_h, record.size_w)
        return cls(pads, float(value[0]))

    def write(self, writer: DataWriter) -> Record:
        """Append the value."""
        first = write_operand(np.array([self.value], dtype=np.float32), writer)
        top, left, below, right = self.pads
        return Record(
            0, first=first, second=ABSENT, pad_h=top, pad_w=left, size_h=below, size_w=right
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the larger shape; the domain stays where it holds the value, else float32."""
        expect(len(source.shape) == 3, "pad2d needs [channel, height, width]")
        channels, height, width = source.shape
        top, left, below, right = self.pads
        shape = (channels, height + top + below, width + left + right)
        product(shape)
        return Activation(shape, source.domain if holds(source.domain, self.value) else FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Copy into a larger array."""
        if x.dtype == np.float32 or not holds(domain_of(x), self.value):
            return pad_images(to_float(x), self.pads, self.value)
        return pad_images(x, self.pads, self.value < 0 if x.dtype == np.bool_ else self.value)


def pad_images(x: Array, pads: tuple[int, int, int, int], value: float) -> Array:
    """Surround [batch, channel, height, width] with a value: top, left, below, right."""
    top, left, below, right = pads
    height, width = x.shape[2:]
    shape = (*x.shape[:2], height + top + below, width + left + right)
    padded = np.full(shape, value, dtype=x.dtype)
    padded[:, :, top : top + height, left : left + width] = x
    return padded
