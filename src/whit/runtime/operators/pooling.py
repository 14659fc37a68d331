"""Operators that make one number of many: windows of an image, or whole axes."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import FLOAT, MAX_RANK, Activation, Record
from whit.runtime.operators.contract import Array, Plain, expect, to_float
from whit.runtime.operators.padding import pad_images

Pair = tuple[int, int]

# In the order of their codes, which never change their meaning.
REDUCE_MODES = ("mean", "max", "sum")


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
        return cls(*_read_window(record))

    def write(self, writer: DataWriter) -> Record:
        """Append nothing; everything is in the record."""
        return _window_record(self.size, self.stride, self.pad)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return [channel, rows, columns] of windows; the domain stays."""
        sides = window_sides(self.kind, source.shape, self.size, self.stride, self.pad)
        return Activation((source.shape[0], *sides), source.domain)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Take the maximum of the shifted images; of signs, -1 only where all are -1."""
        lowest: Any = True if x.dtype == np.bool_ else -np.inf
        if x.dtype.kind in "iu":
            lowest = np.iinfo(x.dtype).min
        larger = np.logical_and if x.dtype == np.bool_ else np.maximum
        return _over_windows(x, larger, lowest, (self.size, self.stride, self.pad))


@dataclass(frozen=True)
class AvgPool2d(Plain):
    """Mean over windows of [channel, height, width], padded with zeros.

    Args:
        size: height and width of the window.
        stride: rows and columns between windows.
        pad: rows and columns added on each side, at most half the window.
        inside_only: divide by the number of elements inside the input, not of the window.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int] = (0, 0)
    inside_only: bool = False
    kind: ClassVar[str] = "avg_pool2d"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from the size, stride and pad fields; ``pad_value`` 1 counts inside only."""
        expect(record.pad_value in (0, 1), f"avg_pool2d counts in the way {record.pad_value}")
        return cls(*_read_window(record), bool(record.pad_value))

    def write(self, writer: DataWriter) -> Record:
        """Append nothing; everything is in the record."""
        record = _window_record(self.size, self.stride, self.pad)
        return replace(record, pad_value=int(self.inside_only))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 [channel, rows, columns] of windows."""
        sides = window_sides(self.kind, source.shape, self.size, self.stride, self.pad)
        return Activation((source.shape[0], *sides), FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Sum the shifted images, then divide by the number of elements."""
        window = (self.size, self.stride, self.pad)
        sums = _over_windows(to_float(x), np.add, 0.0, window)
        if not self.inside_only:
            return sums / np.float32(self.size[0] * self.size[1])
        inside = np.ones((1, 1, *x.shape[2:]), dtype=np.float32)
        return sums / _over_windows(inside, np.add, 0.0, window)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of a padded float32 copy."""
        (pad_h, pad_w), (channels, height, width) = self.pad, source.shape
        return 8 * channels * (height + 2 * pad_h) * (width + 2 * pad_w)


@dataclass(frozen=True)
class Reduce(Plain):
    """Mean, maximum or sum over whole axes.

    Args:
        mode: "mean", "max" or "sum".
        axes: axes of one sample, ascending.
        keep: keep these axes with size 1.
    """

    mode: str
    axes: tuple[int, ...]
    keep: bool = False
    kind: ClassVar[str] = "reduce"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: mode ``size_h``, axes as bits of ``size_w``, keep ``stride_h``."""
        expect(record.size_h < len(REDUCE_MODES), f"reduce has the unknown mode {record.size_h}")
        expect(record.size_w < 1 << MAX_RANK, "reduce has an axis beyond the fourth")
        expect(record.stride_h <= 1, "reduce keeps axes, or not")
        axes = tuple(axis for axis in range(MAX_RANK) if record.size_w >> axis & 1)
        return cls(REDUCE_MODES[record.size_h], axes, bool(record.stride_h))

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        bits = sum(1 << axis for axis in self.axes)
        mode = REDUCE_MODES.index(self.mode)
        return Record(0, size_h=mode, size_w=bits, stride_h=int(self.keep))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the remaining axes; a maximum keeps the domain, mean and sum are float32."""
        expect(self.mode in REDUCE_MODES, f"reduce has the unknown mode '{self.mode}'")
        ascending = self.axes == tuple(sorted(set(self.axes)))
        within = bool(self.axes) and 0 <= self.axes[0] and self.axes[-1] < len(source.shape)
        expect(ascending and within, f"reduce takes the axes {self.axes} of {source.shape}")
        shape = tuple(
            1 if axis in self.axes else size
            for axis, size in enumerate(source.shape)
            if self.keep or axis not in self.axes
        )
        expect(len(shape) > 0, "reduce leaves no axis")
        return Activation(shape, source.domain if self.mode == "max" else FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Reduce behind the batch axis; of signs, the maximum is -1 only where all are -1."""
        axes = tuple(axis + 1 for axis in self.axes)
        if self.mode == "max":
            choose = np.all if x.dtype == np.bool_ else np.max
            best: Array = choose(x, axis=axes, keepdims=self.keep)
            return best
        total: Array = to_float(x).sum(axis=axes, keepdims=self.keep, dtype=np.float32)
        count = math.prod(x.shape[axis] for axis in axes)
        return total if self.mode == "sum" else total / np.float32(count)


def window_sides(
    kind: str, shape: tuple[int, ...], size: Pair, stride: Pair, pad: Pair
) -> tuple[int, int]:
    """Return rows and columns of windows over [channel, height, width]; check that they fit."""
    expect(len(shape) == 3, f"{kind} needs [channel, height, width]")
    sides = []
    for length, window, step, border in zip(shape[1:], size, stride, pad, strict=True):
        expect(window > 0 and step > 0 and 2 * border <= window, f"{kind} has a bad window")
        expect(length + 2 * border >= window, f"{kind} has a window larger than its input")
        sides.append((length + 2 * border - window) // step + 1)
    return sides[0], sides[1]


def _over_windows(x: Array, join: np.ufunc, border: Any, window: tuple[Pair, Pair, Pair]) -> Array:
    size, stride, pad = window
    rows, columns = window_sides("a window", x.shape[1:], size, stride, pad)
    if any(pad):
        x = pad_images(x, (*pad, *pad), border)
    joined: Array | None = None
    for row in range(size[0]):
        for column in range(size[1]):
            last_row = row + stride[0] * (rows - 1) + 1
            last_column = column + stride[1] * (columns - 1) + 1
            part = x[:, :, row : last_row : stride[0], column : last_column : stride[1]]
            joined = part if joined is None else join(joined, part)
    return x if joined is None else joined


def _read_window(record: Record) -> tuple[Pair, Pair, Pair]:
    size, stride = (record.size_h, record.size_w), (record.stride_h, record.stride_w)
    return size, stride, (record.pad_h, record.pad_w)


def _window_record(size: Pair, stride: Pair, pad: Pair) -> Record:
    (size_h, size_w), (stride_h, stride_w), (pad_h, pad_w) = size, stride, pad
    return Record(
        0,
        size_h=size_h,
        size_w=size_w,
        stride_h=stride_h,
        stride_w=stride_w,
        pad_h=pad_h,
        pad_w=pad_w,
    )
