"""The code of a whole program: the operators in order, bodies of members as functions."""

import re
from collections.abc import Callable

from whit.errors import WhitError
from whit.export.c_axes import (
    write_concat,
    write_group_norm,
    write_layer_norm,
    write_reduce,
    write_softmax,
    write_transpose,
)
from whit.export.c_elementwise import (
    copy_value,
    write_add,
    write_affine,
    write_clamp,
    write_curve,
    write_leaky_relu,
    write_normalize,
    write_relu,
    write_sign,
)
from whit.export.c_images import write_avg_pool2d, write_max_pool2d, write_pad2d
from whit.export.c_integers import (
    write_levels,
    write_lookup,
    write_quantize,
    write_requantize,
    write_threshold,
)
from whit.export.c_matrices import write_conv2d, write_embedding, write_linear
from whit.export.c_routes import member_function, write_member_function, write_route
from whit.export.c_step import StepWriter
from whit.export.c_text import comment_text
from whit.export.c_unit import Unit
from whit.export.c_values import ALIASES, Value
from whit.runtime.layout import FLOAT
from whit.runtime.operators import Member
from whit.runtime.program import Program

WRITERS: dict[str, Callable[[StepWriter], None]] = {
    "linear": write_linear,
    "conv2d": write_conv2d,
    "affine": write_affine,
    "normalize": write_normalize,
    "relu": write_relu,
    "sign": write_sign,
    "threshold": write_threshold,
    "max_pool2d": write_max_pool2d,
    "pad2d": write_pad2d,
    "add": write_add,
    "multiply": write_add,
    "concat": write_concat,
    "avg_pool2d": write_avg_pool2d,
    "reduce": write_reduce,
    "leaky_relu": write_leaky_relu,
    "clamp": write_clamp,
    "curve": write_curve,
    "softmax": write_softmax,
    "layer_norm": write_layer_norm,
    "group_norm": write_group_norm,
    "embedding": write_embedding,
    "transpose": write_transpose,
    "quantize": write_quantize,
    "requantize": write_requantize,
    "levels": write_levels,
    "lookup": write_lookup,
    "route": write_route,
}


class ProgramWriter:
    """Writes the operators of a program into a unit.

    Args:
        program: the network.
        unit: the C file.
        values: where each value lies.
        routes: the members of each route.
    """

    def __init__(
        self, program: Program, unit: Unit, values: list[Value], routes: dict[int, list[int]]
    ) -> None:
        """Keep the parts."""
        self._program, self._unit, self._values = program, unit, values
        self._routes = routes

    def write(self) -> str:
        """Return the body of the predict function; buffers still stand as tokens."""
        count = len(self._program.steps)
        lines = self._block(0, count)
        last = self._values[-1]
        if last.token != "output":
            output = Value(last.activation, outside="output")
            step = StepWriter(self._unit, count, None, last, None, output)
            if last.activation.domain == FLOAT:
                copy_value(step, last.token, "float", "output")
            else:
                step.convert(last, "output")
            lines += ["/* the output as floats */", *step.lines]
        return lay_out([*lines, "return 0;"])

    def _block(self, begin: int, end: int) -> list[str]:
        lines: list[str] = []
        index = begin
        while index < end:
            operator = self._program.steps[index].operator
            if isinstance(operator, Member):
                index += operator.count
            else:
                self._write_members(index)
                lines += self._step(index)
            index += 1
        return lines

    def _step(self, index: int) -> list[str]:
        step = self._program.steps[index]
        other = self._values[step.other] if step.operator.inputs == 2 else None
        source, target = self._values[step.source], self._values[index + 1]
        lines = [f"/* {self._comment(index)} */"]
        if step.operator.kind in ALIASES:
            return lines
        write = WRITERS.get(step.operator.kind)
        if write is None:
            raise WhitError(
                f"operator {index} of the program is '{step.operator.kind}', which the C export "
                "does not know: update whit, or run the file with whit.runtime"
            )
        first = min([index, *self._routes.get(index, [])])
        writer = StepWriter(self._unit, index, step.operator, source, other, target, first)
        write(writer)
        return lines + writer.lines

    def _comment(self, index: int) -> str:
        step = self._program.steps[index]
        parts = [f"{index}: {step.operator.kind}"]
        if step.operator.inputs == 2:
            parts.append(f"value {step.source} and value {step.other},")
        source, result = self._values[step.source].activation, step.result
        parts.append(f"{list(source.shape)} {source.domain}")
        parts.append(f"-> {list(result.shape)} {result.domain}")
        weight = step.operator.matrix
        if weight is not None:
            parts.append(f"(weight {weight.form.name} {weight.rows} x {weight.columns})")
        return comment_text(" ".join(parts))

    def _write_members(self, route: int) -> None:
        for number, member in enumerate(self._routes.get(route, []), start=1):
            operator = self._program.steps[member].operator
            assert isinstance(operator, Member)
            end = member + operator.count
            body = self._block(member + 1, end + 1)
            own = self._values[member + 1]
            step = StepWriter(self._unit, end, None, self._values[end + 1], None, own)
            write_member_function(step, member_function(route, number), body, lay_out)


def lay_out(lines: list[str]) -> str:
    """Indent lines of code by their braces; labels stand one step to the left."""
    depth, texts = 1, []
    for line in lines:
        depth -= line.startswith("}")
        label = re.match(r"(case \d+|default):", line) is not None
        texts.append("    " * (depth - label) + line)
        depth += line.endswith("{")
    return "\n".join(texts)
