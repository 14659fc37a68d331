"""The network between torch and the file: a chain of nodes with torch constants.

Tracing makes nodes; folding rewrites them; what remains is written as runtime operators.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Node:
    """One step: ``module`` is the path of its module, ``shape`` that of one sample after it."""

    module: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LinearNode(Node):
    """x W^T + b; ``weight`` [rows, columns], ``bias`` [rows] or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class ConvNode(LinearNode):
    """Two-dimensional convolution; ``weight`` [outputs, channels / groups, kh, kw]."""

    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: int
    pad_value: int = 0


@dataclass(frozen=True, eq=False)
class ElementwiseNode(Node):
    """A function of each number alone, with constants that broadcast over the channels.

    Args:
        apply: the real torch operation on a batch [batch, *shape].
        name: what it is called in messages.
        form: ("multiply" | "add" | "divide" | "relu" | "batch_norm" | "", its constants).
        per_channel: whether all constants are one, or one per channel.
    """

    apply: Callable[[Tensor], Tensor]
    name: str
    form: str
    constants: tuple[Tensor, ...] = ()
    per_channel: bool = True


@dataclass(frozen=True, eq=False)
class StepNode(Node):
    """Three values: for x < center, x = center, x > center."""

    center: float
    values: tuple[float, float, float]
    name: str


@dataclass(frozen=True, eq=False)
class PoolNode(Node):
    """Maximum over windows."""

    size: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]


@dataclass(frozen=True, eq=False)
class ReshapeNode(Node):
    """Another shape of the same numbers."""


@dataclass(frozen=True, eq=False)
class PadNode(Node):
    """A constant border: top, left, below, right."""

    pads: tuple[int, int, int, int]
    value: float


@dataclass(frozen=True, eq=False)
class ThresholdNode(Node):
    """A folded step: +1 where x >= T, or x <= T where flipped, else -1."""

    thresholds: Tensor
    flipped: Tensor
    integers: bool
