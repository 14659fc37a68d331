"""The network between torch and the file: a graph of nodes with torch constants.

Tracing makes nodes; folding rewrites them; what remains is written as runtime operators. A node
names the nodes that it reads, so the output node is the whole graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whit.runtime.operators import Operator, Route


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One step: ``module`` is the path of its module, ``shape`` that of one sample after it."""

    module: str
    shape: tuple[int, ...]
    sources: tuple["Node", ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class InputNode(Node):
    """The input of the program or of a subprogram; ``domain`` as in the file."""

    domain: str


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearNode(Node):
    """x W^T + b on the last axis.

    Args:
        weight: [rows, columns].
        bias: [rows] or None.
        exact: integers on integers, whose sums are read as integers.
    """

    weight: Tensor
    bias: Tensor | None
    exact: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvNode(LinearNode):
    """Two-dimensional convolution; ``weight`` [outputs, channels / groups, kh, kw]."""

    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: int
    pad_value: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class ElementwiseNode(Node):
    """A function of each number alone, with constants that broadcast over the channels.

    Args:
        apply: the real torch operation on a batch [batch, *shape].
        name: what it is called in messages.
        form: "multiply", "add", "subtract", "subtract_from", "divide", "batch_norm", "relu",
            "clamp", "round", or "" for any other function.
        constants: of the form: the operand; scale and shift; low and high.
        per_channel: whether all constants are one, or one per channel.
        discrete: whether it has finitely many values between any two numbers (signs, rounding).
        monotone: whether it never falls, or never rises.
        operator: what it becomes where it is not folded away; None when only folding can write it.
    """

    apply: Callable[[Tensor], Tensor]
    name: str
    form: str = ""
    constants: tuple[Tensor, ...] = ()
    per_channel: bool = True
    discrete: bool = False
    monotone: bool = True
    operator: Operator | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolNode(Node):
    """Maximum over windows."""

    size: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReshapeNode(Node):
    """Another shape of the same numbers."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PadNode(Node):
    """A constant border: top, left, below, right."""

    pads: tuple[int, int, int, int]
    value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingNode(Node):
    """Rows of a table; ``weight`` [rows, columns]."""

    weight: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class OperatorNode(Node):
    """A step that is written as it is."""

    operator: Operator


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerNode(OperatorNode):
    """Signs or integers with known bounds: ``threshold``, ``levels``, ``quantize``, ``requantize``.

    Args:
        domain: "sign" or an integer domain of the file.
        bound: largest magnitude of its values.
    """

    domain: str
    bound: int


@dataclass(frozen=True, eq=False, kw_only=True)
class RouteNode(Node):
    """Networks of which an input runs only some; sources are the scores and the input.

    Args:
        route: the runtime operator.
        members: input node and output node of each further network.
    """

    route: Route
    members: tuple[tuple[InputNode, Node], ...]


def in_order(output: Node) -> list[Node]:
    """Return all nodes that the output needs, each after the nodes that it reads."""
    order: list[Node] = []
    seen: set[int] = set()
    waiting: list[tuple[Node, bool]] = [(output, False)]
    while waiting:
        node, ready = waiting.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((node, True))
            waiting.extend((source, False) for source in reversed(node.sources))
    return order


def count_uses(nodes: list[Node]) -> dict[int, int]:
    """Return how many nodes read each node, by ``id``; the output counts as read once."""
    uses = {id(node): 0 for node in nodes}
    for node in nodes:
        for source in node.sources:
            uses[id(source)] += 1
    uses[id(nodes[-1])] += 1
    return uses


def is_per_channel(constant: Tensor, shape: tuple[int, ...]) -> bool:
    """Say whether a constant is one number, or one per channel shaped to broadcast."""
    return constant.numel() == 1 or constant.shape == (shape[0],) + (1,) * (len(shape) - 1)


def multiplied(source: Node, factor: Tensor) -> ElementwiseNode:
    """Return the source times a constant (one, or as many as broadcast to a sample)."""
    return ElementwiseNode(
        module=source.module,
        shape=source.shape,
        sources=(source,),
        apply=factor.mul,
        name="mul",
        form="multiply",
        constants=(factor,),
        per_channel=is_per_channel(factor, source.shape),
    )


def added(source: Node, shift: Tensor) -> ElementwiseNode:
    """Return the source plus a constant (one, or as many as broadcast to a sample)."""
    return ElementwiseNode(
        module=source.module,
        shape=source.shape,
        sources=(source,),
        apply=lambda x: torch.add(x, shift),
        name="add",
        form="add",
        constants=(shift,),
        per_channel=is_per_channel(shift, source.shape),
    )


def reshaped(source: Node, shape: tuple[int, ...]) -> Node:
    """Return the source in another shape; itself where nothing changes."""
    if source.shape == shape:
        return source
    return ReshapeNode(module=source.module, shape=shape, sources=(source,))
