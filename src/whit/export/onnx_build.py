"""From the steps of a program to an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from whit.errors import WhitError
from whit.export.onnx_elementwise import (
    write_affine,
    write_clamp,
    write_curve,
    write_group_norm,
    write_layer_norm,
    write_leaky_relu,
    write_normalize,
    write_relu,
    write_softmax,
)
from whit.export.onnx_graph import Graph, Value, value_of
from whit.export.onnx_matrix import write_conv2d, write_linear, write_quantized, write_requantize
from whit.export.onnx_route import write_route
from whit.export.onnx_shapes import (
    write_add,
    write_avg_pool2d,
    write_concat,
    write_max_pool2d,
    write_multiply,
    write_pad2d,
    write_reduce,
    write_reshape,
    write_transpose,
)
from whit.export.onnx_steps import (
    write_embedding,
    write_levels,
    write_lookup,
    write_quantize,
    write_sign,
    write_threshold,
)
from whit.runtime import Program
from whit.runtime.layout import INTEGER, Activation
from whit.runtime.operators import Conv2d, Linear, MaxPool2d, Member, Requantize, Route
from whit.runtime.program import Step

INPUT, OUTPUT = "input", "output"
QUANTIZED = ("qdq", "exact")

# By the name of the operator; `member` and `route` are written by the builder itself.
ONE_INPUT: dict[str, Callable[[Graph, Any, Value, Activation], Value]] = {
    "linear": write_linear,
    "conv2d": write_conv2d,
    "affine": write_affine,
    "normalize": write_normalize,
    "relu": write_relu,
    "sign": write_sign,
    "threshold": write_threshold,
    "max_pool2d": write_max_pool2d,
    "flatten": write_reshape,
    "reshape": write_reshape,
    "pad2d": write_pad2d,
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
}
TWO_INPUTS: dict[str, Callable[[Graph, Any, Value, Value, Activation], Value]] = {
    "add": write_add,
    "multiply": write_multiply,
    "concat": write_concat,
}


@dataclass
class Built:
    """A graph and where the values of the program are in it.

    Attributes:
        graph: nodes and constants.
        values: value k of the program; None inside a QDQ pattern.
        merged: numbers of the requantize steps that became QDQ patterns with a matrix operator.
        inside: numbers of all steps of such patterns but the first.
    """

    graph: Graph
    values: list[Value | None]
    merged: set[int] = field(default_factory=set)
    inside: set[int] = field(default_factory=set)


def build(program: Program, quantized: str) -> Built:
    """Write every step of a program.

    Args:
        program: the network.
        quantized: "qdq" to make integer layers QDQ patterns, "exact" for the integers of the file.

    Raises:
        WhitError: an unknown way was asked for, or an operator has no form in ONNX.
    """
    if quantized not in QUANTIZED:
        raise WhitError(f"quantized was given {quantized!r}; give 'qdq' or 'exact'")
    source = value_of(INPUT, Activation(program.input.shape, program.input.dtype))
    if program.input.dtype == INTEGER:
        source = Value(INPUT, source.shape, INTEGER, "int32", source.limit)
    built = Built(Graph(), [source])
    chains = _chains(program.steps) if quantized == "qdq" else {}
    for number in range(len(program.steps)):
        built.graph.scope = program.steps[number].cost.name
        _write_step(program.steps, number, built, chains)
    built.graph.scope = OUTPUT
    last = _known(built, len(program.steps))
    tensor = built.graph.floats(last)
    if program.leading:
        axes = [1, 0, *range(2, len(last.shape) + 1)]
        tensor = built.graph.node("Transpose", tensor, perm=axes)
    _name_output(built, tensor)
    return built


def _write_step(
    steps: Sequence[Step], number: int, built: Built, chains: dict[int, tuple[int, ...]]
) -> None:
    if number in built.inside:
        return
    step, graph = steps[number], built.graph
    operator, x = step.operator, _known(built, step.source)
    if number in chains and _write_chain(steps, chains[number], built):
        return
    if isinstance(operator, Member):
        value = x
    elif isinstance(operator, Route):
        members = [_known(built, k) for k in member_results(steps, number, operator.members)]
        value = write_route(graph, operator, x, members, step.result)
    elif operator.kind in TWO_INPUTS:
        other = _known(built, step.other)
        value = TWO_INPUTS[operator.kind](graph, operator, x, other, step.result)
    elif operator.kind in ONE_INPUT:
        value = ONE_INPUT[operator.kind](graph, operator, x, step.result)
    else:
        raise WhitError(f"the operator {operator.kind} has no form in ONNX in this whit")
    _put(built, number + 1, value)


def _write_chain(steps: Sequence[Step], chain: tuple[int, ...], built: Built) -> bool:
    """Write a matrix operator up to its requantize as one pattern, where that is possible.

    A requantize never decreases, so a maximum before it may as well be taken behind it.
    """
    first, last = steps[chain[0]], steps[chain[-1]]
    assert isinstance(first.operator, Linear | Conv2d) and isinstance(last.operator, Requantize)
    x, small = _known(built, first.source), Activation(first.result.shape, last.result.domain)
    value = write_quantized(built.graph, first.operator, last.operator, x, small)
    if value is None:
        return False
    for number in chain[1:-1]:
        step = steps[number]
        assert isinstance(step.operator, MaxPool2d)
        value = write_max_pool2d(built.graph, step.operator, value, step.result)
    _put(built, chain[-1] + 1, value)
    built.merged.add(chain[-1])
    built.inside.update(chain[1:])
    return True


def _put(built: Built, number: int, value: Value) -> None:
    built.values += [None] * (number + 1 - len(built.values))
    built.values[number] = value


def member_results(steps: Sequence[Step], route: int, members: int) -> list[int]:
    """Return the numbers of the values that the members of a route give, in order.

    Args:
        steps: all steps of the program.
        route: number of the step of the route.
        members: how many bodies stand directly before it.
    """
    ends = {
        number + step.operator.count: number
        for number, step in enumerate(steps[:route])
        if isinstance(step.operator, Member)
    }
    results: list[int] = []
    end = route - 1
    for _ in range(members):
        results.insert(0, end + 1)
        end = ends[end] - 1
    return results


def _chains(steps: Sequence[Step]) -> dict[int, tuple[int, ...]]:
    """Return, for matrix steps, the steps up to a requantize that alone read their exact sums."""
    readers: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        both = {step.source, step.other} if step.operator.inputs == 2 else {step.source}
        for value in both:
            readers.setdefault(value, []).append(number)
    found = {}
    for number, step in enumerate(steps):
        if not isinstance(step.operator, Linear | Conv2d) or step.result.domain != INTEGER:
            continue
        chain = [number]
        while len(readers.get(chain[-1] + 1, [])) == 1:
            chain.append(readers[chain[-1] + 1][0])
            if not isinstance(steps[chain[-1]].operator, MaxPool2d):
                break
        if isinstance(steps[chain[-1]].operator, Requantize):
            found[number] = tuple(chain)
    return found


def _known(built: Built, number: int) -> Value:
    value = built.values[number]
    if value is None:
        raise WhitError(f"value {number} of the program lies inside a QDQ pattern and is read")
    return value


def _name_output(built: Built, tensor: str) -> None:
    made = any(tensor in node.outputs for node in built.graph.nodes)
    built.graph.named(tensor, OUTPUT)
    if made:
        built.values = [
            Value(OUTPUT, v.shape, v.domain, v.form, v.limit) if v and v.tensor == tensor else v
            for v in built.values
        ]
