"""C code of a route: a function that finds the situation and asks the networks that answer."""

from collections.abc import Callable

import numpy as np

from whit.export.c_step import StepWriter
from whit.export.c_text import float_literal


def write_route(step: StepWriter) -> None:
    """Write the choice of the situation and one case for each.

    The bodies of the members are functions ``member_1``, ... of the route, written before.
    """
    operator = step.operator
    classes, scores = step.elements - operator.deciding, step.floats(step.source)
    chances = step.temporary("float", classes)
    groups = np.array(operator.group_of, dtype=np.uint8)
    array = step.unit.constant(f"group_of_{step.index}", groups)
    kernel = step.unit.kernel("situation")
    limits = f"{float_literal(operator.temperature)}, {float_literal(operator.margin)}"
    choice = f"{kernel}({scores}, {chances}, {classes}, {limits}, "
    choice += f"{array}, {len(operator.group_of)}, {operator.groups}, {operator.deciding})"
    step.lines.append(f"switch ({choice}) {{")
    for number, answering in enumerate(operator.strategies):
        last = number == len(operator.strategies) - 1
        step.lines.append("default:" if last else f"case {number}:")
        _write_answer(step, scores, classes, answering)
        step.lines.append("break;")
    step.lines.append("}")


def member_function(route: int, number: int) -> str:
    """Return the name of the function of a member, counted from 1."""
    return f"route_{route}_member_{number}"


def write_member_function(
    step: StepWriter, name: str, body: list[str], indent: Callable[[list[str]], str]
) -> None:
    """Add the function of a member: its body, then the sum of softmaxes grows by its result.

    Args:
        step: stands at the last record of the body, its source the result of the body.
        name: of the function.
        body: lines of the body.
        indent: lays out lines of code.
    """
    scores = step.floats(step.source)
    step.call(step.unit.kernel("add_softmax"), scores, "total", step.elements)
    code = indent([*body, *step.lines, "return 0;"])
    x = f"const {step.target.c_type} *x"
    unused = "" if _names(code, "x") else "    (void)x;\n"
    text = f"static int {name}({x}, float *total)\n{{\n{unused}{code}\n}}\n"
    step.unit.functions.append(text)


def _names(code: str, name: str) -> bool:
    words = "".join(letter if letter.isalnum() or letter == "_" else " " for letter in code)
    return name in words.split()


def _write_answer(step: StepWriter, scores: str, classes: int, answering: tuple[int, ...]) -> None:
    if tuple(answering) == (0,):
        step.call(step.unit.kernel("copy", "copy_float", x="float"), scores, step.y, classes)
        return
    total = step.y
    step.lines += [f"for (int32_t i = 0; i < {classes}; i++) {{", f"({total})[i] = 0;", "}"]
    for number in answering:
        if number == 0:
            step.call(step.unit.kernel("add_softmax"), scores, total, classes)
        else:
            function = member_function(step.index, number)
            step.lines += [f"if ({function}({step.other.token}, {total}) != 0) {{", "return -1;"]
            step.lines.append("}")
    kernel = step.unit.kernel("log_mean")
    step.call(kernel, total, classes, float_literal(len(answering)))
