"""The convolution, on floats, on whole numbers or on packed signs."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from whit.runtime.bits import binary_gemm_reference, bytes_to_words, pack_bits
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import FLOAT, INTEGER_RANGES, Activation, Record
from whit.runtime.layout import product as size_product
from whit.runtime.operators.contract import Array, Floats, Plain, expect, write_operand
from whit.runtime.operators.matrices import (
    bias_granularity,
    exact,
    factors,
    finish,
    read_bias,
    result_domain,
    whole,
)
from whit.runtime.operators.padding import pad_images
from whit.runtime.weights import StoredWeight, read_weight


@dataclass(frozen=True, eq=False)
class Conv2d(Plain):
    """Cross-correlation of [channel, height, width] with rows of [channel / groups, kh, kw].

    Args:
        weight: matrix [outputs, channel / groups * kh * kw], last axis fastest.
        bias: float32 [outputs], or None.
        size: kernel height and width.
        stride: rows and columns between windows.
        pad: rows and columns added on each side.
        pad_value: -1, 0 or +1 on floats and signs, a number of an integer domain else; 0 counts
            as 0 on signs as well.
        dilation: distance between the taps of a kernel, the same on both axes.
        planes: how many of the highest bit planes to use; None for all. Not part of the file.
    """

    weight: StoredWeight
    bias: Floats | None
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    pad_value: int = 0
    dilation: int = 1
    planes: int | None = None
    kind: ClassVar[str] = "conv2d"

    @property
    def matrix(self) -> StoredWeight:
        """Return the weight matrix."""
        return self.weight

    def narrowed(self, planes: int) -> Self:
        """Return the operator with no more than the highest planes of its weight."""
        fewer = self.weight.form.name == "planes" and planes < self.weight.bits
        return replace(self, planes=planes) if fewer else self

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: weight at ``first``, bias at ``second``."""
        weight = read_weight(record, reader)
        return cls(
            weight,
            read_bias(record, reader),
            (record.size_h, record.size_w),
            (record.stride_h, record.stride_w),
            (record.pad_h, record.pad_w),
            record.pad_value,
            record.dilation,
        )

    def write(self, writer: DataWriter) -> Record:
        """Append the weight, then the bias."""
        first = self.weight.write(writer)
        second, operand = write_operand(self.bias, writer), bias_granularity(self.bias)
        return Record(
            0,
            **self.weight.record_fields(),
            operand=operand,
            first=first,
            second=second,
            size_h=self.size[0],
            size_w=self.size[1],
            stride_h=self.stride[0],
            stride_w=self.stride[1],
            pad_h=self.pad[0],
            pad_w=self.pad[1],
            pad_value=self.pad_value,
            dilation=self.dilation,
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return [outputs, rows, columns]: int32 for whole numbers times bare integers."""
        expect(len(source.shape) == 3, "conv2d needs [channel, height, width]")
        expect(min(*self.size, *self.stride, self.dilation) > 0, "conv2d has a size of 0")
        least, most = INTEGER_RANGES.get(source.domain, (-1, 1))
        expect(
            least <= self.pad_value <= most, f"conv2d pads {source.domain} with a foreign number"
        )
        expect(self.pad != (0, 0) or self.pad_value == 0, "conv2d pads nothing with a value")
        channels = source.shape[0]
        per_group = self.weight.columns // (self.size[0] * self.size[1])
        fits = per_group * self.size[0] * self.size[1] == self.weight.columns
        expect(fits and per_group > 0 and channels % per_group == 0, "conv2d does not fit")
        expect(self.bias is None or self.bias.size == self.weight.rows, "a bias does not fit")
        expect(self.weight.rows % (channels // per_group) == 0, "conv2d has uneven groups")
        shape = (self.weight.rows, *self._sides(source.shape[1:]))
        size_product((channels // per_group, self.weight.columns, *shape[1:]))
        size_product(shape)
        return Activation(shape, result_domain(self.weight, self.bias, source))

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Multiply on packed bits where both sides are signs and in one group, else in floats."""
        together = self.weight.columns == x.shape[1] * self.size[0] * self.size[1]
        if x.dtype == np.bool_ and self.weight.signs and together:
            sums = self._run_packed(x)
        else:
            left = factors(self.weight, self.bias, x)
            sums = self._run_float(pad_images(left, (*self.pad, *self.pad), self.pad_value))
        if exact(self.weight, self.bias, x):
            return whole(sums)
        return finish(sums, self.weight, self.bias, (-1, 1, 1))

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the unfolded input and the sums, float64 for whole numbers."""
        rows, columns = self._sides(source.shape[1:])
        groups = source.shape[0] * self.size[0] * self.size[1] // self.weight.columns
        width = 4 if source.domain == FLOAT else 8
        return width * (groups * self.weight.columns + self.weight.rows) * rows * columns

    def _sides(self, sides: tuple[int, ...]) -> tuple[int, int]:
        lengths = []
        for length, size, stride, pad in zip(sides, self.size, self.stride, self.pad, strict=True):
            reach = self.dilation * (size - 1) + 1
            expect(length + 2 * pad >= reach, "conv2d has a kernel larger than its input")
            lengths.append((length + 2 * pad - reach) // stride + 1)
        return lengths[0], lengths[1]

    def _windows(self, x: Array) -> Array:
        """View padded [batch, a, height, width] as [batch, a, rows, columns, kh, kw]."""
        reach = tuple(self.dilation * (size - 1) + 1 for size in self.size)
        windows = sliding_window_view(x, reach, axis=(2, 3))
        step = self.dilation
        return windows[:, :, :: self.stride[0], :: self.stride[1], ::step, ::step]

    def _run_float(self, padded: Array) -> Array:
        windows = self._windows(padded)
        batch, channels, rows, columns = windows.shape[:4]
        groups = channels * self.size[0] * self.size[1] // self.weight.columns
        taps = windows.transpose(0, 1, 4, 5, 2, 3)
        unfolded = taps.reshape(batch, groups, self.weight.columns, rows * columns)
        floats = self._floats.astype(padded.dtype, copy=False)
        sums: Array = np.matmul(floats.reshape(groups, -1, self.weight.columns), unfolded)
        return sums.reshape(batch, self.weight.rows, rows, columns)

    def _run_packed(self, x: Array) -> Array:
        packed = pack_bits(x.transpose(0, 2, 3, 1))
        border = pack_bits(np.full(x.shape[1], self.pad_value < 0))
        (pad_h, pad_w), (batch, height, width, depth) = self.pad, packed.shape
        padded = np.empty((batch, height + 2 * pad_h, width + 2 * pad_w, depth), dtype=np.uint8)
        padded[:] = border
        padded[:, pad_h : pad_h + height, pad_w : pad_w + width] = packed
        windows = self._windows(padded.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 4, 5, 1)
        _, rows, columns = windows.shape[:3]
        words = bytes_to_words(windows.reshape(batch * rows * columns, -1))
        sums = binary_gemm_reference(words, self._words, self.weight.columns)
        images: Array = sums.reshape(batch, rows, columns, -1).transpose(0, 3, 1, 2)
        if self.pad == (0, 0) or self.pad_value:
            return images
        return images - self._border_sums(x.shape[1:])

    def _border_sums(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Sum the taps [outputs, rows, columns] that lie in a padding of 0, packed as +1."""
        inside = np.zeros((1, *shape), dtype=np.float32)
        outside = pad_images(inside, (*self.pad, *self.pad), 1.0)
        sums: NDArray[np.int32] = self._run_float(outside)[0].astype(np.int32)
        return sums

    @cached_property
    def _words(self) -> NDArray[np.uint64]:
        kernels = self.weight.values.reshape(self.weight.rows, -1, *self.size)
        packed = pack_bits(kernels.transpose(0, 2, 3, 1) < 0)
        return bytes_to_words(packed.reshape(self.weight.rows, -1))

    @cached_property
    def _floats(self) -> Floats:
        return self.weight.without_scale().dense(self.planes)
