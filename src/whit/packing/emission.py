"""From folded nodes to runtime operators, with every weight in its smallest format."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.errors import ArtifactError, CannotPack, WhitError
from whit.packing.folding import check_written
from whit.packing.formats import Choice, choose_storage
from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    EmbeddingNode,
    InputNode,
    LinearNode,
    Node,
    OperatorNode,
    PadNode,
    PoolNode,
    ReshapeNode,
    RouteNode,
    count_uses,
    in_order,
)
from whit.runtime.layout import NONE, SCALAR, Activation
from whit.runtime.operators import (
    Affine,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    Member,
    Normalize,
    Operator,
    Pad2d,
    Relu,
    Reshape,
)
from whit.runtime.operators.contract import granularity_of

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FormatRules:
    """Which weight formats may be used.

    Args:
        force: format by path of the module; "*" stands for every other module.
        forbid: formats that are never used.
        asked: format by path that a module asks for (its attribute `stored_as`); `force` goes
            before it.
    """

    force: Mapping[str, str] = field(default_factory=dict)
    forbid: Collection[str] = ()
    asked: Mapping[str, str] = field(default_factory=dict)

    def choose(self, values: Floats, module: str, taps: int, whole: bool) -> Choice:
        """Return the smallest allowed format for the matrix of a module.

        Args:
            values: float32 [rows, columns].
            module: path of the module.
            taps: kernel height * width, 1 for other matrices.
            whole: only integers without scales.

        Raises:
            CannotPack: no allowed format holds the values.
        """
        forced = self.force.get(module, self.force.get("*", self.asked.get(module)))
        try:
            only = None if forced is None else [forced]
            return choose_storage(values, taps=taps, only=only, never=self.forbid, whole=whole)
        except WhitError as error:
            raise CannotPack(str(error), module) from error


@dataclass(frozen=True)
class Emitted:
    """An operator with the values that it reads, its module, and how its weight was stored.

    Args:
        operator: the runtime operator.
        source: number of the value it reads.
        other: number of the second value, else 0.
        module: path of the module it came from.
        choice: format of its weight and why; None without a weight.
    """

    operator: Operator
    source: int
    other: int
    module: str
    choice: Choice | None = None


def emit(output: Node, source: Activation, rules: FormatRules) -> list[Emitted]:
    """Turn nodes into operators.

    Args:
        output: from ``fold``.
        source: the input of the program.
        rules: which formats may be used.

    Raises:
        CannotPack: an operator has no place in the format, or a number does not fit its field.
    """
    emitter = _Emitter(rules, [source])
    emitter.add_graph(output, 0)
    unknown = [name for name in rules.force if name != "*" and name not in emitter.weighted]
    if unknown:
        raise WhitError(
            f"force names '{unknown[0]}', which is no module with a weight in the packed network; "
            f"these are {', '.join(emitter.weighted) or 'none'} (or '*' for all)"
        )
    return emitter.emitted


@dataclass(eq=False)
class _Emitter:
    """Numbers values as it writes operators: value k + 1 is the result of operator k."""

    rules: FormatRules
    values: list[Activation]
    emitted: list[Emitted] = field(default_factory=list)
    weighted: list[str] = field(default_factory=list)

    def add_graph(self, output: Node, start: int) -> int:
        """Write all nodes of a graph whose input is the value ``start``; return the output."""
        nodes = in_order(output)
        uses = count_uses(nodes)
        place: dict[int, int] = {}
        for node in nodes:
            if isinstance(node, InputNode):
                place[id(node)] = start
                continue
            read = [place[id(source)] for source in node.sources]
            if isinstance(node, RouteNode):
                place[id(node)] = self._add_route(node, read)
            else:
                joinable = uses[id(node.sources[0])] == 1 and read[0] > start
                place[id(node)] = self._add(node, read, joinable)
        return place[id(output)]

    def _add_route(self, node: RouteNode, read: list[int]) -> int:
        scores, x = read
        for _, member in node.members:
            place = len(self.emitted)
            self._append(Emitted(Member(0), x, 0, node.module))
            self.add_graph(member, place + 1)
            count = len(self.emitted) - place - 1
            self.emitted[place] = replace(self.emitted[place], operator=Member(count))
        return self._append(Emitted(node.route, scores, x, node.module))

    def _add(self, node: Node, read: list[int], joinable: bool) -> int:
        other = read[1] if len(read) > 1 else 0
        try:
            step = self._step(node, read[0], other)
            before = self.emitted[read[0] - 1] if joinable else None
            joined = None if before is None else _join(before, step)
            if joined is None:
                return self._append(step)
        except ArtifactError as error:
            raise CannotPack(f"{error}; the packed format cannot hold it", node.module) from error
        self.emitted[read[0] - 1] = joined
        self.values[read[0]] = joined.operator.result(self.values[joined.source])
        return read[0]

    def _append(self, step: Emitted) -> int:
        two = step.operator.inputs == 2
        result = (
            step.operator.result(self.values[step.source], self.values[step.other])
            if two
            else step.operator.result(self.values[step.source])
        )
        self.emitted.append(step)
        self.values.append(result)
        return len(self.values) - 1

    def _step(self, node: Node, source: int, other: int) -> Emitted:
        if isinstance(node, LinearNode | EmbeddingNode):
            choice = _choose(node, self.rules)
            self.weighted.append(node.module)
            return Emitted(_weighted_operator(node, choice), source, 0, node.module, choice)
        return Emitted(_plain_operator(node, self.values[source]), source, other, node.module)


def operator_of(node: Node, source: Activation, rules: FormatRules) -> Operator:
    """Return the operator of one node on its own; arguments and errors as in ``emit``."""
    if isinstance(node, LinearNode | EmbeddingNode):
        return _weighted_operator(node, _choose(node, rules))
    return _plain_operator(node, source)


def _choose(node: LinearNode | EmbeddingNode, rules: FormatRules) -> Choice:
    values = to_numpy(node.weight, node.module).reshape(node.weight.shape[0], -1)
    taps = int(np.prod(node.weight.shape[2:])) if isinstance(node, ConvNode) else 1
    exact = isinstance(node, LinearNode) and node.exact
    return rules.choose(values, node.module, taps, exact)


def _weighted_operator(node: LinearNode | EmbeddingNode, choice: Choice) -> Operator:
    if isinstance(node, EmbeddingNode):
        return Embedding(choice.weight)
    bias = None if node.bias is None else to_numpy(node.bias, node.module)
    bias = bias if bias is not None and bias.any() else None
    if not isinstance(node, ConvNode):
        return Linear(choice.weight, bias)
    size = (int(node.weight.shape[2]), int(node.weight.shape[3]))
    _check_bytes(node, *size, *node.stride, *node.pad, node.dilation)
    pad_value = node.pad_value if node.pad != (0, 0) else 0
    return Conv2d(choice.weight, bias, size, node.stride, node.pad, pad_value, node.dilation)


def _plain_operator(node: Node, source: Activation) -> Operator:
    if isinstance(node, OperatorNode):
        return node.operator
    if isinstance(node, ElementwiseNode):
        return _elementwise(node, source)
    if isinstance(node, PoolNode):
        _check_bytes(node, *node.size, *node.stride, *node.pad)
        return MaxPool2d(node.size, node.stride, node.pad)
    if isinstance(node, PadNode):
        _check_bytes(node, *node.pads)
        return Pad2d(node.pads, float(np.float32(node.value)))
    if isinstance(node, ReshapeNode):
        return Flatten() if node.shape == (source.elements,) else Reshape(node.shape)
    raise CannotPack("this step could not be folded; report it with the model", node.module)


def to_numpy(tensor: Tensor, module: str) -> Floats:
    """Return constants as float32.

    Raises:
        CannotPack: NaN or infinite numbers, or numbers that are not real.
    """
    if tensor.is_complex() or not bool(torch.isfinite(tensor).all()):
        raise CannotPack(
            "a weight or constant holds NaN, infinite or complex numbers; the training diverged, "
            "lower the learning rate",
            module,
        )
    values: Floats = tensor.detach().to(torch.float32).numpy()
    return values


def _check_bytes(node: Node, *sizes: int) -> None:
    if any(size > 255 for size in sizes):
        raise CannotPack(f"sizes, strides and pads must be at most 255, got {sizes}", node.module)


def _elementwise(node: ElementwiseNode, source: Activation) -> Operator:
    if node.form == "relu":
        return Relu()
    if node.operator is not None:
        return node.operator
    constants = [to_numpy(constant.reshape(-1), node.module) for constant in node.constants]
    make = _ARITHMETIC.get(node.form)
    if make is None:
        raise check_written(node)
    return make(constants, [granularity_of(constant.size, source) for constant in constants])


Arithmetic = Callable[[list[Floats], list[int]], Operator]
_MINUS = np.array([-1], dtype=np.float32)
_ARITHMETIC: dict[str, Arithmetic] = {
    "multiply": lambda c, grain: Affine(c[0], None, grain[0], NONE),
    "add": lambda c, grain: Affine(None, c[0], NONE, grain[0]),
    "subtract": lambda c, grain: Normalize(None, c[0], NONE, grain[0]),
    "divide": lambda c, grain: Normalize(c[0], None, grain[0], NONE),
    "subtract_from": lambda c, grain: Affine(_MINUS, c[0], SCALAR, grain[0]),
    "batch_norm": lambda c, grain: Affine(c[0], c[1], grain[0], grain[1]),
}


def _join(before: Emitted, after: Emitted) -> Emitted | None:
    """Put a scale and a shift that follow one another into one operator; None where it differs."""
    first, second = before.operator, after.operator
    operator: Operator | None = None
    if isinstance(first, Normalize) and isinstance(second, Normalize):
        if first.scale is None and second.shift is None:
            grains = (second.scale_granularity, first.shift_granularity)
            operator = Normalize(second.scale, first.shift, *grains)
    elif type(first) is Affine and type(second) is Affine:
        if first.shift is None and second.scale is None:
            grains = (first.scale_granularity, second.shift_granularity)
            operator = Affine(first.scale, second.shift, *grains)
    return None if operator is None else replace(before, operator=operator, module=after.module)
