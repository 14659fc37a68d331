"""The code of one operator while it is written."""

from typing import Any

from whit.export.c_unit import Unit
from whit.export.c_values import Value
from whit.runtime.layout import FLOAT, SIGN, Activation


class StepWriter:
    """Writes the lines of one operator.

    Args:
        unit: the C file.
        index: position of the operator in the program.
        operator: the operator.
        source: the value it reads.
        other: the second value it reads, or None.
        target: the value it makes.
        first: index from which on its temporaries are in use; that of the operator if None.

    Attributes:
        lines: the code, one statement or brace a line, buffers still as tokens.
    """

    def __init__(
        self,
        unit: Unit,
        index: int,
        operator: Any,
        source: Value,
        other: Value | None,
        target: Value,
        first: int | None = None,
    ) -> None:
        """Begin without code."""
        self._first = index if first is None else first
        self.unit, self.index, self.operator = unit, index, operator
        self.source, self.target = source, target
        self._other = other
        self.lines: list[str] = []

    @property
    def other(self) -> Value:
        """Return the second value; only operators that read two ask for it."""
        assert self._other is not None
        return self._other

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the value read."""
        return self.source.activation.shape

    @property
    def elements(self) -> int:
        """Return the number of elements read."""
        return self.source.activation.elements

    @property
    def y(self) -> str:
        """Return the address of the result."""
        return self.target.token

    def call(self, function: str, *arguments: str | int) -> None:
        """Add a call."""
        self.lines.append(f"{function}({', '.join(str(argument) for argument in arguments)});")

    def temporary(self, c_type: str, count: int) -> str:
        """Return the address of memory for this operator alone."""
        return self.unit.buffer(c_type, count, self._first, self.index).token

    def numbers(self, value: Value) -> tuple[str, str]:
        """Return type and address of a value; signs become the int8 numbers +1 and -1."""
        if value.activation.domain != SIGN:
            return value.c_type, value.token
        count = value.activation.elements
        address = self.temporary("int8_t", count)
        self.call(self.unit.kernel("unpack_signs"), value.token, address, count)
        return "int8_t", address

    def floats(self, value: Value) -> str:
        """Return the address of a value as floats, converted where it is something else."""
        if value.activation.domain == FLOAT:
            return value.token
        address = self.temporary("float", value.activation.elements)
        self.convert(value, address)
        return address

    def floats_for_result(self) -> str:
        """Return the address of the source as floats; what is converted lies in the result."""
        if self.source.activation.domain == FLOAT:
            return self.source.token
        self.convert(self.source, self.y)
        return self.y

    def convert(self, value: Value, address: str) -> None:
        """Write a value as floats to an address."""
        count = value.activation.elements
        if value.activation.domain == SIGN:
            self.call(self.unit.kernel("signs_to_float"), value.token, address, count)
            return
        name = f"{value.activation.domain}_to_float"
        kernel = self.unit.kernel("convert", name, x=value.c_type, y="float")
        self.call(kernel, value.token, address, count)

    def constants(
        self, x: str, operator: str, array: str, outer: int, count: int, inner: int
    ) -> None:
        """Combine floats at ``x`` with constants, into the result."""
        names = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide_by"}
        name = f"{names[operator]}_constants"
        kernel = self.unit.kernel("constants", name, operator=operator)
        self.call(kernel, x, self.y, array, outer, count, inner)


def four_axes(shape: tuple[int, ...], fill: int = 1) -> tuple[int, ...]:
    """Return sizes or strides of four axes, with ``fill`` in front."""
    return (fill,) * (4 - len(shape)) + tuple(shape)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the distance in elements of neighbours along each axis."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def channels_of(activation: Activation, count: int) -> tuple[int, int]:
    """Return for 1 constant, or one per channel, the channels and the elements of each."""
    return count, activation.elements // count
