"""What every operator offers, and the constants that operators carry."""

from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    ABSENT,
    BYTE,
    CHANNEL,
    FEATURE,
    FLOAT,
    INT8,
    INT16,
    INTEGER,
    INTEGER_RANGES,
    NONE,
    SCALAR,
    SIGN,
    Activation,
    Record,
)
from whit.runtime.weights import StoredWeight

Array = NDArray[Any]
Floats = NDArray[np.float32]
_Value = TypeVar("_Value")

NUMPY_DTYPES: dict[str, type[np.generic]] = {
    FLOAT: np.float32,
    BYTE: np.uint8,
    INT8: np.int8,
    INT16: np.int16,
    INTEGER: np.int32,
    SIGN: np.bool_,
}


class Operator(Protocol):
    """One step of the program, from one activation to the next.

    An operator knows its bytes in both directions, its shapes, and its slow obvious meaning. A
    batch of signs travels as booleans, True for -1; whole numbers in the NumPy dtype of their
    domain. ``inputs`` says how many values are read, 1 or 2.
    """

    kind: ClassVar[str]
    inputs: ClassVar[int]

    @property
    def matrix(self) -> StoredWeight | None:
        """Return the weight matrix, None for operators without one."""

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild the operator from its record; raises ArtifactError when it cannot be."""

    def write(self, writer: DataWriter) -> Record:
        """Append the constants; return the record, its kind, source and other still 0."""

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return what the operator makes of its values; raises ArtifactError when it cannot."""

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Apply the operator to a batch [batch, *source.shape] and the second value read."""

    def narrowed(self, planes: int) -> Self:
        """Return the operator with no more than the highest bit planes of its weight."""

    def scratch_bytes(self, source: Activation) -> int:
        """Estimate the temporary bytes of one sample, beyond input and output."""


class Plain:
    """Operators of one value, without a weight and without notable temporaries."""

    inputs: ClassVar[int] = 1

    @property
    def matrix(self) -> StoredWeight | None:
        """Return None: there is no weight."""
        return None

    def narrowed(self, planes: int) -> Self:
        """Return the operator itself: it has no planes."""
        return self

    def scratch_bytes(self, source: Activation) -> int:
        """Return 0 bytes."""
        return 0


def to_float(x: Array) -> Floats:
    """Return a batch as float32: signs become +1 and -1, integers keep their value."""
    if x.dtype == np.bool_:
        return np.where(x, np.float32(-1), np.float32(1))
    return x.astype(np.float32, copy=False)


def to_integer(x: Array) -> Array:
    """Return a batch of whole numbers as integers: signs become +1 and -1."""
    return np.where(x, np.int8(-1), np.int8(1)) if x.dtype == np.bool_ else x


def second(kind: str, other: _Value | None) -> _Value:
    """Return the second value; raises ArtifactError where there is none."""
    if other is None:
        raise ArtifactError(f"{kind} reads two values and was given one")
    return other


def expect(condition: bool, message: str) -> None:
    """Raise ArtifactError with the message unless the condition holds."""
    if not condition:
        raise ArtifactError(message)


def operand_count(granularity: int, source: Activation) -> int:
    """Count the constants of an operand: 0, 1, one a channel (axis 1), or one a feature."""
    expect(granularity <= FEATURE, f"an operand has the unknown granularity {granularity}")
    counts = {NONE: 0, SCALAR: 1, CHANNEL: source.shape[0], FEATURE: source.elements}
    return counts[granularity]


def granularity_of(count: int, source: Activation) -> int:
    """Return the granularity under which ``count`` constants are stored."""
    counts = {0: NONE, source.elements: FEATURE, source.shape[0]: CHANNEL, 1: SCALAR}
    return counts[count]


def spread(constants: Array, granularity: int, x: Array) -> Array:
    """Shape constants so that they broadcast over a batch [batch, channel, ...]."""
    if granularity == FEATURE:
        return constants.reshape(x.shape[1:])
    return constants.reshape((-1,) + (1,) * (x.ndim - 2)) if granularity == CHANNEL else constants


def spread_channels(constants: Array, x: Array) -> Array:
    """Shape one constant, or one a channel, so that they broadcast over [batch, channel, ...]."""
    return constants.reshape((-1,) + (1,) * (x.ndim - 2))


def read_floats(offset: int, count: int, reader: DataReader) -> Floats:
    """Read ``count`` float32 constants, 1 or more, that must be there."""
    expect(offset != ABSENT, "a constant has no place")
    reader.seek(offset)
    return reader.floats(count)


def read_operand(offset: int, count: int, reader: DataReader) -> Floats | None:
    """Read ``count`` float32 constants at ``offset``; None when count is 0."""
    if count == 0:
        expect(offset == ABSENT, "an operand without constants has an offset")
        return None
    reader.seek(offset)
    return reader.floats(count)


def write_operand(constants: Floats | None, writer: DataWriter) -> int:
    """Append float32 constants and return their offset, ABSENT when there are none."""
    if constants is None:
        return ABSENT
    return writer.append(constants.astype("<f4").tobytes(), 4)


def domain_of(x: Array) -> str:
    """Return the domain of a batch by its dtype."""
    return next(domain for domain, dtype in NUMPY_DTYPES.items() if x.dtype == dtype)


def holds(domain: str, value: float) -> bool:
    """Say whether padding with ``value`` keeps a domain; a domain of signs holds +1 and -1."""
    if domain == FLOAT or not float(value).is_integer():
        return False
    low, high = INTEGER_RANGES[domain]
    return low <= value <= high and (domain != SIGN or value != 0)
