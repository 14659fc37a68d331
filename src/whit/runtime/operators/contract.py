"""What every operator offers, and the constants that operators carry."""

from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.backends import BinaryGemm
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    ABSENT,
    CHANNEL,
    FEATURE,
    NONE,
    SCALAR,
    SIGN,
    Activation,
    Record,
)
from whit.runtime.weights import StoredWeight

Array = NDArray[Any]
Floats = NDArray[np.float32]


class Operator(Protocol):
    """One step of the program, from one activation to the next.

    An operator knows its bytes in both directions, its shapes, and its slow obvious meaning. A
    batch of signs travels as booleans, True for -1.
    """

    kind: ClassVar[str]

    @property
    def weight(self) -> StoredWeight | None:
        """Return the weight matrix, None for operators without one."""

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild the operator from its record; raises ArtifactError when it cannot be."""

    def write(self, writer: DataWriter) -> Record:
        """Append the constants and return the record, its kind and source still 0."""

    def result(self, source: Activation) -> Activation:
        """Return what the operator makes of ``source``; raises ArtifactError when it cannot."""

    def run(self, x: Array, product: BinaryGemm) -> Array:
        """Apply the operator to a batch [batch, *source.shape]."""

    def scratch_bytes(self, source: Activation) -> int:
        """Estimate the temporary bytes of one sample, beyond input and output."""


class Plain:
    """Operators without a weight and without notable temporaries."""

    @property
    def weight(self) -> StoredWeight | None:
        """Return None: there is no weight."""
        return None

    def scratch_bytes(self, source: Activation) -> int:
        """Return 0 bytes."""
        return 0


def to_float(x: Array) -> Floats:
    """Return a batch as float32: signs become +1 and -1, integers keep their value."""
    if x.dtype == np.bool_:
        return np.where(x, np.float32(-1), np.float32(1))
    return x.astype(np.float32, copy=False)


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


def keeps_sign(source: Activation, value: float) -> bool:
    """Say whether padding ``source`` with ``value`` leaves nothing but +1 and -1."""
    return source.domain == SIGN and abs(value) == 1.0
