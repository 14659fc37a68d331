"""Where each value of a program lies in the C source."""

from dataclasses import dataclass

from whit.export.c_memory import Buffer, words_of_bits
from whit.export.c_unit import Unit
from whit.runtime.layout import SIGN, Activation
from whit.runtime.operators import Member, Route
from whit.runtime.program import Program

DOMAIN_TYPES = {
    "float32": "float",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "sign": "uint32_t",
}
ALIASES = ("flatten", "reshape")
# Operators that may write over what they read: each number depends on later ones of no other.
IN_PLACE = (
    "add affine clamp curve group_norm layer_norm leaky_relu multiply normalize relu softmax"
).split()


@dataclass
class Value:
    """A value between two operators.

    Args:
        activation: its shape and domain.
        place: its buffer, or None when it lies outside of the arenas.
        outside: then the name of the pointer to it.
    """

    activation: Activation
    place: Buffer | None = None
    outside: str = ""

    @property
    def c_type(self) -> str:
        """Return the type of its elements; signs lie in words."""
        return DOMAIN_TYPES[self.activation.domain]

    @property
    def token(self) -> str:
        """Return what stands for its address."""
        return self.place.token if self.place else self.outside


def find_members(program: Program) -> dict[int, list[int]]:
    """Return the index of each route with the indices of its members."""
    routes: dict[int, list[int]] = {}
    _collect(program, 0, len(program.steps), routes)
    return routes


def lay_out_values(program: Program, unit: Unit, routes: dict[int, list[int]]) -> list[Value]:
    """Give every value of a program a buffer, or the pointer under which it comes from outside.

    Args:
        program: the network.
        unit: gets the buffers.
        routes: the members of each route.
    """
    source = Activation(program.input.shape, program.input.dtype)
    values = [Value(source, outside="input")]
    roots, last_reads = _lifetimes(program)
    for index, step in enumerate(program.steps):
        value = Value(step.result)
        origin = values[step.source]
        if step.operator.kind in ALIASES:
            value.place, value.outside = origin.place, origin.outside
        elif isinstance(step.operator, Member):
            value.outside = "x"
        elif roots[-1] == index + 1 and step.result.domain == "float32":
            value.outside = "output"
        elif origin.place and _may_overwrite(program, index, last_reads[roots[step.source]]):
            value.place = origin.place
            value.place.last = last_reads[index + 1]
        else:
            first = min([index, *routes.get(index, [])])
            count = step.result.elements
            count = words_of_bits(count) if step.result.domain == SIGN else count
            value.place = unit.buffer(value.c_type, count, first, last_reads[index + 1])
        values.append(value)
    return values


def _may_overwrite(program: Program, index: int, last_read: int) -> bool:
    step = program.steps[index]
    before = program.steps[step.source - 1].result if step.source else None
    same = before is not None and before.domain == step.result.domain != SIGN
    return same and step.operator.kind in IN_PLACE and last_read == index


def _lifetimes(program: Program) -> tuple[list[int], list[int]]:
    """Return for each value the value whose memory it shares, and the step that reads it last."""
    roots = [0]
    for index, step in enumerate(program.steps):
        roots.append(roots[step.source] if step.operator.kind in ALIASES else index + 1)
    last_reads = [max(0, value - 1) for value in range(len(roots))]
    for index, step in enumerate(program.steps):
        reads = [step.source, step.other] if step.operator.inputs == 2 else [step.source]
        for value in reads:
            last_reads[roots[value]] = max(last_reads[roots[value]], index)
        if isinstance(step.operator, Member):
            end = index + step.operator.count
            last_reads[roots[end + 1]] = max(last_reads[roots[end + 1]], end)
    last_reads[roots[-1]] = len(program.steps)
    return roots, last_reads


def _collect(program: Program, begin: int, end: int, routes: dict[int, list[int]]) -> None:
    members: list[int] = []
    index = begin
    while index < end:
        operator = program.steps[index].operator
        if isinstance(operator, Member):
            members.append(index)
            _collect(program, index + 1, index + 1 + operator.count, routes)
            index += operator.count
        elif isinstance(operator, Route):
            routes[index] = members
            members = []
        index += 1
