"""Non-linear functions of floats: leaky relu, clamp, curves and softmax."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import CHANNEL, FLOAT, SCALAR, Activation, Record
from whit.runtime.operators.contract import (
    Array,
    Floats,
    Plain,
    expect,
    operand_count,
    read_floats,
    spread_channels,
    to_float,
    write_operand,
)

_GELU_TANH = np.float32(math.sqrt(2 / math.pi))
_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True, eq=False)
class LeakyRelu(Plain):
    """y = x where x >= 0, else x * slope; NaN stays NaN.

    Args:
        slopes: float32 [1] or one per channel.
    """

    slopes: Floats
    kind: ClassVar[str] = "leaky_relu"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: slopes at ``second``."""
        expect(record.operand in (SCALAR, CHANNEL), "slopes are one, or one per channel")
        return cls(read_floats(record.second, operand_count(record.operand, source), reader))

    def write(self, writer: DataWriter) -> Record:
        """Append the slopes."""
        granularity = SCALAR if self.slopes.size == 1 else CHANNEL
        return Record(0, operand=granularity, second=write_operand(self.slopes, writer))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        expect(self.slopes.size in (1, source.shape[0]), "leaky_relu does not fit")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Multiply what is negative by its slope."""
        x = to_float(x)
        return np.where(x >= 0, x, x * spread_channels(self.slopes, x))


@dataclass(frozen=True)
class Clamp(Plain):
    """y = min(max(x, low), high); NaN stays NaN.

    Args:
        low: smallest result, a float32.
        high: largest result, a float32.
    """

    low: float
    high: float
    kind: ClassVar[str] = "clamp"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: low and high at ``first``."""
        low, high = read_floats(record.first, 2, reader)
        return cls(float(low), float(high))

    def write(self, writer: DataWriter) -> Record:
        """Append low and high."""
        limits = np.array([self.low, self.high], dtype=np.float32)
        return Record(0, first=write_operand(limits, writer))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Limit from below, then from above."""
        clamped: Array = np.maximum(to_float(x), np.float32(self.low))
        return np.minimum(clamped, np.float32(self.high))


@dataclass(frozen=True)
class Curve(Plain):
    """One of the smooth functions of ``CURVES``, element by element.

    Args:
        function: its name.
        alpha: a of elu, a float32; the other functions have none.
    """

    function: str
    alpha: float = 1.0
    kind: ClassVar[str] = "curve"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: the function is ``size_h``, a of elu lies at ``first``."""
        expect(record.size_h < len(CURVES), f"curve {record.size_h} is unknown")
        function = list(CURVES)[record.size_h]
        if function != "elu":
            return cls(function)
        return cls(function, float(read_floats(record.first, 1, reader)[0]))

    def write(self, writer: DataWriter) -> Record:
        """Append a for elu, nothing for the others."""
        alpha = np.array([self.alpha], dtype=np.float32) if self.function == "elu" else None
        code = list(CURVES).index(self.function)
        return Record(0, size_h=code, first=write_operand(alpha, writer))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        expect(self.function in CURVES, f"curve '{self.function}' is unknown")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Apply the function."""
        return CURVES[self.function](to_float(x), np.float32(self.alpha))

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the intermediate results; gelu works on Python floats."""
        return (64 if self.function == "gelu" else 12) * source.elements


@dataclass(frozen=True)
class Softmax(Plain):
    """e^x / sum of e^x along one axis, or its logarithm.

    Args:
        axis: axis of one sample, 0 for the channel.
        log: give the logarithm.
    """

    axis: int
    log: bool = False
    kind: ClassVar[str] = "softmax"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: the axis is ``size_h``, the logarithm ``size_w`` 1."""
        expect(record.size_w <= 1, f"softmax has the unknown form {record.size_w}")
        return cls(record.size_h, bool(record.size_w))

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0, size_h=self.axis, size_w=int(self.log))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 of the same shape."""
        expect(self.axis < len(source.shape), f"softmax has no axis {self.axis}")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Subtract the maximum, then normalise."""
        if self.log:
            return log_softmax(to_float(x), self.axis + 1)
        return softmax(to_float(x), self.axis + 1)

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of the exponentials."""
        return 8 * source.elements


def softmax(x: Floats, axis: int) -> Floats:
    """Return e^x / sum of e^x along an axis of the batch, the maximum subtracted first."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    result: Floats = powers / powers.sum(axis=axis, keepdims=True)
    return result


def log_softmax(x: Floats, axis: int) -> Floats:
    """Return the logarithm of the softmax along an axis of the batch."""
    shifted = x - x.max(axis=axis, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return result


def _sigmoid(x: Floats, alpha: np.float32) -> Floats:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _gelu(x: Floats, alpha: np.float32) -> Floats:
    # NumPy has no error function; the complement is accurate in both tails.
    wide = x.astype(np.float64)
    tail = np.asarray(_erfc(wide * -math.sqrt(0.5)), dtype=np.float64)
    return (wide * 0.5 * tail).astype(np.float32)


def _gelu_tanh(x: Floats, alpha: np.float32) -> Floats:
    cube: Floats = x * x * x
    inner: Floats = (x + np.float32(0.044715) * cube) * _GELU_TANH
    raised: Floats = np.tanh(inner) + np.float32(1)
    return x * np.float32(0.5) * raised


def _elu(x: Floats, alpha: np.float32) -> Floats:
    below: Floats = alpha * np.expm1(np.minimum(x, np.float32(0)))
    return np.where(x < 0, below, x)


def _softplus(x: Floats, alpha: np.float32) -> Floats:
    result: Floats = np.logaddexp(np.float32(0), x).astype(np.float32, copy=False)
    return result


def _hardsigmoid(x: Floats, alpha: np.float32) -> Floats:
    line: Floats = np.maximum(x / np.float32(6) + np.float32(0.5), np.float32(0))
    return np.minimum(line, np.float32(1))


# In the order of their codes, which never change their meaning.
CURVES: dict[str, Callable[[Floats, np.float32], Floats]] = {
    "sigmoid": _sigmoid,
    "tanh": lambda x, alpha: np.tanh(x),
    "silu": lambda x, alpha: x * _sigmoid(x, alpha),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "elu": _elu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda x, alpha: x * _hardsigmoid(x, alpha),
    "softplus": _softplus,
    "abs": lambda x, alpha: np.abs(x),
    "square": lambda x, alpha: x * x,
}
