"""Normalisation by the mean and variance of the sample itself."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import CHANNEL, FEATURE, FLOAT, NONE, Activation, Record
from whit.runtime.layout import product as size_product
from whit.runtime.operators.contract import (
    Array,
    Floats,
    Plain,
    expect,
    read_floats,
    read_operand,
    spread_channels,
    to_float,
    write_operand,
)


@dataclass(frozen=True, eq=False)
class LayerNorm(Plain):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + shift over the last axes.

    Args:
        axes: how many of the last axes are taken together, 1 or more.
        epsilon: float32 added to the variance.
        weight: float32 [columns], or None.
        shift: float32 [columns], or None.
        columns: elements of these axes together.
    """

    axes: int
    epsilon: float
    weight: Floats | None
    shift: Floats | None
    columns: int
    kind: ClassVar[str] = "layer_norm"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: epsilon and weights at ``first``, shifts at ``second``."""
        codes = (record.scale, record.operand)
        expect(set(codes) <= {NONE, FEATURE}, "layer_norm has no constants or one per feature")
        counts = [record.columns if code else 0 for code in codes]
        epsilon, weight = _read_epsilon(record.first, counts[0], reader)
        shift = read_operand(record.second, counts[1], reader)
        return cls(record.rows, epsilon, weight, shift, record.columns)

    def write(self, writer: DataWriter) -> Record:
        """Append epsilon and weights, then shifts."""
        first = _write_epsilon(self.epsilon, self.weight, writer)
        return Record(
            0,
            scale=NONE if self.weight is None else FEATURE,
            operand=NONE if self.shift is None else FEATURE,
            rows=self.axes,
            columns=self.columns,
            first=first,
            second=write_operand(self.shift, writer),
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        expect(1 <= self.axes <= len(source.shape), f"layer_norm over {self.axes} axes")
        elements = size_product(source.shape[-self.axes :])
        expect(elements == self.columns, f"layer_norm of {self.columns} elements has {elements}")
        for constants in (self.weight, self.shift):
            expect(constants is None or constants.size == elements, "layer_norm does not fit")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Normalise, then multiply, then add."""
        axes, shape = tuple(range(x.ndim - self.axes, x.ndim)), x.shape[x.ndim - self.axes :]
        y = _standardise(to_float(x), axes, self.epsilon)
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        return y if self.shift is None else y + self.shift.reshape(shape)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the centred and the squared input."""
        return 8 * source.elements


@dataclass(frozen=True, eq=False)
class GroupNorm(Plain):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + shift over groups of channels.

    Args:
        groups: number of groups; each takes equally many channels with all their positions.
        epsilon: float32 added to the variance.
        weight: float32 [channels], or None.
        shift: float32 [channels], or None.
    """

    groups: int
    epsilon: float
    weight: Floats | None
    shift: Floats | None
    kind: ClassVar[str] = "group_norm"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: epsilon and weights at ``first``, shifts at ``second``."""
        codes = (record.scale, record.operand)
        expect(set(codes) <= {NONE, CHANNEL}, "group_norm has no constants or one per channel")
        counts = [source.shape[0] if code else 0 for code in codes]
        epsilon, weight = _read_epsilon(record.first, counts[0], reader)
        return cls(record.rows, epsilon, weight, read_operand(record.second, counts[1], reader))

    def write(self, writer: DataWriter) -> Record:
        """Append epsilon and weights, then shifts."""
        first = _write_epsilon(self.epsilon, self.weight, writer)
        return Record(
            0,
            scale=NONE if self.weight is None else CHANNEL,
            operand=NONE if self.shift is None else CHANNEL,
            rows=self.groups,
            first=first,
            second=write_operand(self.shift, writer),
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        channels = source.shape[0]
        expect(self.groups > 0 and channels % self.groups == 0, "group_norm has uneven groups")
        for constants in (self.weight, self.shift):
            expect(constants is None or constants.size == channels, "group_norm does not fit")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Normalise each group, then multiply, then add."""
        elements = size_product(x.shape[1:]) // self.groups
        grouped = to_float(x).reshape(x.shape[0], self.groups, elements)
        y: Array = _standardise(grouped, (2,), self.epsilon).reshape(x.shape)
        if self.weight is not None:
            y = y * spread_channels(self.weight, y)
        return y if self.shift is None else y + spread_channels(self.shift, y)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the centred and the squared input."""
        return 8 * source.elements


def _standardise(x: Floats, axes: tuple[int, ...], epsilon: float) -> Floats:
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = (centred * centred).mean(axis=axes, keepdims=True)
    result: Floats = centred / np.sqrt(variance + np.float32(epsilon))
    return result


def _read_epsilon(offset: int, count: int, reader: DataReader) -> tuple[float, Floats | None]:
    constants = read_floats(offset, 1 + count, reader)
    return float(constants[0]), constants[1:] if count else None


def _write_epsilon(epsilon: float, weight: Floats | None, writer: DataWriter) -> int:
    constants = np.array([epsilon], dtype=np.float32)
    return write_operand(
        constants if weight is None else np.concatenate([constants, weight]), writer
    )
