"""Operators with a weight matrix: linear and conv2d, on floats or on packed signs."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from whit.runtime.backends import BinaryGemm
from whit.runtime.bits import bytes_to_words, pack_bits
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    ABSENT,
    CHANNEL,
    FLOAT,
    INTEGER,
    NONE,
    SIGN,
    Activation,
    Record,
)
from whit.runtime.layout import product as size_product
from whit.runtime.operators.contract import (
    Array,
    Floats,
    expect,
    read_operand,
    to_float,
    write_operand,
)
from whit.runtime.operators.spatial import pad_images
from whit.runtime.weights import StoredWeight, read_weight

_EXACT_COLUMNS = 1 << 24  # float32 sums of that many signs are still exact integers


@dataclass(frozen=True, eq=False)
class Linear:
    """y = x W^T * scale + bias, x [batch, columns], W [rows, columns].

    Signs times levels without scale and bias give exact int32; all else is float32.

    Args:
        weight: the matrix with its scales.
        bias: float32 [rows], or None.
    """

    weight: StoredWeight
    bias: Floats | None
    kind: ClassVar[str] = "linear"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: weight at ``first``, bias at ``second``."""
        weight = read_weight(record, reader)
        return cls(weight, _read_bias(record, reader))

    def write(self, writer: DataWriter) -> Record:
        """Append the weight, then the bias."""
        first = self.weight.write(writer)
        second, operand = write_operand(self.bias, writer), _bias_granularity(self.bias)
        fields = self.weight.record_fields()
        return Record(0, **fields, operand=operand, first=first, second=second)

    def result(self, source: Activation) -> Activation:
        """Return [rows]: int32 for signs times bare levels, else float32."""
        expect(source.shape == (self.weight.columns,), "linear does not fit its input")
        return Activation((self.weight.rows,), result_domain(self.weight, self.bias, source))

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Multiply on packed bits where both sides are signs, else in float32."""
        if x.dtype == np.bool_ and self.weight.form.bits == 1:
            sums: Array = product(bytes_to_words(pack_bits(x)), self._words, self.weight.columns)
        else:
            sums = to_float(x) @ self._floats.T
        return finish(sums, self.weight, self.bias, x.dtype == np.bool_)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of a float32 copy of the input."""
        return 4 * source.elements

    @cached_property
    def _words(self) -> NDArray[np.uint64]:
        return bytes_to_words(pack_bits(self.weight.values < 0))

    @cached_property
    def _floats(self) -> Floats:
        return self.weight.values.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Conv2d:
    """Cross-correlation of [channel, height, width] with rows of [channel / groups, kh, kw].

    Args:
        weight: matrix [outputs, channel / groups * kh * kw], last axis fastest.
        bias: float32 [outputs], or None.
        size: kernel height and width.
        stride: rows and columns between windows.
        pad: rows and columns added on each side.
        pad_value: -1, 0 or +1; 0 is exact on signs as well.
        dilation: distance between the taps of a kernel, the same on both axes.
    """

    weight: StoredWeight
    bias: Floats | None
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    pad_value: int = 0
    dilation: int = 1
    kind: ClassVar[str] = "conv2d"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: weight at ``first``, bias at ``second``."""
        weight = read_weight(record, reader)
        return cls(
            weight,
            _read_bias(record, reader),
            (record.size_h, record.size_w),
            (record.stride_h, record.stride_w),
            (record.pad_h, record.pad_w),
            record.pad_value,
            record.dilation,
        )

    def write(self, writer: DataWriter) -> Record:
        """Append the weight, then the bias."""
        first = self.weight.write(writer)
        second, operand = write_operand(self.bias, writer), _bias_granularity(self.bias)
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

    def result(self, source: Activation) -> Activation:
        """Return [outputs, rows, columns]: int32 for signs times bare levels, else float32."""
        expect(len(source.shape) == 3, "conv2d needs [channel, height, width]")
        expect(min(*self.size, *self.stride, self.dilation) > 0, "conv2d has a size of 0")
        expect(abs(self.pad_value) <= 1, "conv2d pads with something else than -1, 0, +1")
        expect(self.pad != (0, 0) or self.pad_value == 0, "conv2d pads nothing with a value")
        channels = source.shape[0]
        per_group = self.weight.columns // (self.size[0] * self.size[1])
        fits = per_group * self.size[0] * self.size[1] == self.weight.columns
        expect(fits and per_group > 0 and channels % per_group == 0, "conv2d does not fit")
        expect(self.weight.rows % (channels // per_group) == 0, "conv2d has uneven groups")
        shape = (self.weight.rows, *self._sides(source.shape[1:]))
        size_product((channels // per_group, self.weight.columns, *shape[1:]))
        size_product(shape)
        return Activation(shape, result_domain(self.weight, self.bias, source))

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Multiply on packed bits where both sides are signs and in one group, else in float32."""
        whole = self.weight.columns == x.shape[1] * self.size[0] * self.size[1]
        if x.dtype == np.bool_ and self.weight.form.bits == 1 and whole:
            sums = self._run_packed(x, product)
        else:
            pads = (*self.pad, *self.pad)
            sums = self._run_float(pad_images(to_float(x), pads, self.pad_value))
        return finish(sums, self.weight, self.bias, x.dtype == np.bool_)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the unfolded float32 input."""
        rows, columns = self._sides(source.shape[1:])
        groups = source.shape[0] * self.size[0] * self.size[1] // self.weight.columns
        return 4 * groups * self.weight.columns * rows * columns

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

    def _run_float(self, padded: Floats) -> Floats:
        windows = self._windows(padded)
        batch, channels, rows, columns = windows.shape[:4]
        groups = channels * self.size[0] * self.size[1] // self.weight.columns
        taps = windows.transpose(0, 1, 4, 5, 2, 3)
        unfolded = taps.reshape(batch, groups, self.weight.columns, rows * columns)
        matrix = self._floats.reshape(groups, -1, self.weight.columns)
        sums: Floats = np.matmul(matrix, unfolded)
        return sums.reshape(batch, self.weight.rows, rows, columns)

    def _run_packed(self, x: Array, product: BinaryGemm) -> Array:
        packed = pack_bits(x.transpose(0, 2, 3, 1))
        border = pack_bits(np.full(x.shape[1], self.pad_value < 0))
        (pad_h, pad_w), (batch, height, width, depth) = self.pad, packed.shape
        padded = np.empty((batch, height + 2 * pad_h, width + 2 * pad_w, depth), dtype=np.uint8)
        padded[:] = border
        padded[:, pad_h : pad_h + height, pad_w : pad_w + width] = packed
        windows = self._windows(padded.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 4, 5, 1)
        _, rows, columns = windows.shape[:3]
        words = bytes_to_words(windows.reshape(batch * rows * columns, -1))
        sums = product(words, self._words, self.weight.columns)
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
        return self.weight.values.astype(np.float32)


def result_domain(weight: StoredWeight, bias: Floats | None, source: Activation) -> str:
    """Return int32 for signs times bare levels without bias, else float32."""
    if source.domain != SIGN or not weight.form.levels:
        return FLOAT
    expect(weight.columns < _EXACT_COLUMNS, "a sum of signs has 2^24 terms or more")
    return INTEGER if weight.exact_levels and bias is None else FLOAT


def finish(sums: Array, weight: StoredWeight, bias: Floats | None, signs: bool) -> Array:
    """Turn raw sums [batch, rows, ...] into outputs: keep integers, else scale and add bias."""
    if signs and weight.exact_levels and bias is None:
        return sums.astype(np.int32, copy=False)
    shape = (-1,) + (1,) * (sums.ndim - 2)
    outputs: Array = sums.astype(np.float32, copy=False)
    if weight.scale.size:
        outputs = outputs * weight.scale.reshape(shape)
    return outputs if bias is None else outputs + bias.reshape(shape)


def _bias_granularity(bias: Floats | None) -> int:
    return NONE if bias is None else CHANNEL


def _read_bias(record: Record, reader: DataReader) -> Floats | None:
    expect(record.operand in (NONE, CHANNEL), "a bias is missing or one per output")
    expect(record.operand == NONE or record.second != ABSENT, "a bias has no place")
    return read_operand(record.second, record.rows if record.operand else 0, reader)
