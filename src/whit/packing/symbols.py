"""What the packer knows about a value while it walks a graph.

An activation is the chain of nodes that leads to it. A comparison or a sign is three values (below,
at, above a number), so that any spelling of a sign is judged by what it gives at 0.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whit.errors import CannotPack
from whit.packing.graph_nodes import Node, StepNode


@dataclass(frozen=True, eq=False)
class Data:
    """The activation after ``nodes``; ``dtype`` as torch sees it."""

    nodes: tuple[Node, ...]
    shape: tuple[int, ...]
    batch: object
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Step:
    """Three values of a comparison of ``source`` with ``center``: below, at, above."""

    source: Data
    center: float
    values: Tensor
    name: str


def materialize(step: Step, module: str, operator: str) -> Data:
    """Turn three values into a node.

    Raises:
        CannotPack: the values at, below and above the center are three, as of torch.sign.
    """
    below, at, above = (float(value) for value in step.values)
    if at not in (below, above) or below == above:
        raise CannotPack(
            f"{step.name} gives {below:g}, {at:g}, {above:g} below, at and above "
            f"{step.center:g}; a binary activation has two values (torch.sign(0) is 0): write "
            "torch.where(x >= 0, 1.0, -1.0)",
            module,
            step.name or operator,
        )
    source = step.source
    node = StepNode(module, source.shape, step.center, (below, at, above), step.name)
    return Data((*source.nodes, node), source.shape, source.batch, step.values.dtype)


@dataclass(frozen=True, eq=False)
class Call:
    """One ATen call on one activation."""

    node: torch.fx.Node
    arguments: list[Any]
    keywords: dict[str, Any]
    module: str
    name: str

    @property
    def data(self) -> Data:
        """Return the activation among the arguments."""
        found = next(value for value in self.arguments if isinstance(value, Data))
        assert isinstance(found, Data)
        return found

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or name."""
        if index < len(self.arguments):
            return self.arguments[index]
        return self.keywords.get(name, default)

    def refuse(self, reason: str) -> CannotPack:
        """Return the error for this call."""
        return CannotPack(reason, self.module, self.name)

    def shape(self) -> tuple[int, ...]:
        """Return the result's shape of one sample, after a check of its batch axis."""
        shape = self.node.meta["val"].shape
        if len(shape) < 2 or not _same_size(shape[0], self.data.batch):
            raise self.refuse(
                "its result does not keep the batch as its first axis; leading axes (members, "
                "exits, time) cannot be packed in this version"
            )
        if not all(isinstance(size, int) for size in shape[1:]):
            raise self.refuse("a size beside the batch depends on the batch")
        return tuple(int(size) for size in shape[1:])

    def then(self, make: type[Node], **fields: Any) -> Data:
        """Append a node."""
        node = make(module=self.module, shape=self.shape(), **fields)
        dtype = self.node.meta["val"].dtype
        return Data((*self.data.nodes, node), node.shape, self.data.batch, dtype)


def _same_size(size: object, batch: object) -> bool:
    return not isinstance(size, int) and str(size) == str(batch)
