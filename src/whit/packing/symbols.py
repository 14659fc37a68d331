"""What the packer knows about a value while it walks a graph.

An activation is the node that gives it. A comparison or a sign is a staircase of its source: its
values at and between a few numbers, so that any spelling of a sign is judged by what it gives at 0.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whit.errors import CannotPack
from whit.packing.graph_nodes import ElementwiseNode, Node
from whit.packing.in_place import functional


@dataclass(frozen=True, eq=False)
class Data:
    """The activation that ``node`` gives.

    Args:
        node: where it comes from; its shape is that of one sample.
        batch: the symbol of the batch size.
        dtype: as torch sees it.
        leading: whether the first axis of a sample (members) stands before the batch in torch.
        difference: of q - x, as straight-through estimators write it: q and x.
    """

    node: Node
    batch: object
    dtype: torch.dtype
    leading: bool = False
    difference: tuple["Data", "Data"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return self.node.shape

    def axis(self, dim: int, call: "Call") -> int:
        """Return the axis of a sample that torch calls ``dim``.

        Raises:
            CannotPack: it is the batch axis.
        """
        rank = len(self.shape) + 1
        dim = dim % rank
        batch = 1 if self.leading else 0
        if dim == batch:
            raise call.refuse("it works along the batch axis; each sample must be alone")
        return dim - 1 if dim > batch else dim


@dataclass(frozen=True, eq=False)
class Step:
    """A staircase of ``source``.

    Args:
        source: what is compared.
        centers: ascending numbers c_1..c_k.
        values: [2 k + 1]: below c_1, at c_1, between c_1 and c_2, at c_2, ..., above c_k.
        name: of the operator that made it.
    """

    source: Data
    centers: tuple[float, ...]
    values: Tensor
    name: str

    def spread(self, centers: tuple[float, ...]) -> Tensor:
        """Return the values on a finer staircase with more centers."""
        positions = [self._position(center) for center in centers]
        between = [0, *(p if p % 2 == 0 else p + 1 for p in positions)]
        found = [between[0]]
        for position, above in zip(positions, between[1:], strict=True):
            found += [position, above]
        return self.values[found]

    def _position(self, number: float) -> int:
        below = sum(center < number for center in self.centers)
        return 2 * below + (1 if number in self.centers else 0)


def materialize(step: Step, module: str, operator: str) -> Data:
    """Turn a staircase into a node.

    Raises:
        CannotPack: its values rise and fall.
    """
    values = step.values.to(torch.float32)
    if not bool((values.diff() >= 0).all() or (values.diff() <= 0).all()):
        raise CannotPack(
            f"{step.name} rises and falls again ({values.tolist()} below, at and above "
            f"{list(step.centers)}); the format holds steps in one direction",
            module,
            step.name or operator,
        )
    centers = torch.tensor(step.centers, dtype=torch.float32)

    def apply(x: Tensor) -> Tensor:
        below = torch.searchsorted(centers, x.contiguous())
        at = centers[below.clamp_max(len(centers) - 1)] == x
        return values[2 * below + at.to(torch.int64)]

    source = step.source
    node = ElementwiseNode(
        module=module,
        shape=source.shape,
        sources=(source.node,),
        apply=apply,
        name=step.name,
        discrete=True,
    )
    return replace(source, node=node, dtype=step.values.dtype, difference=None)


@dataclass(frozen=True, eq=False)
class Call:
    """One ATen call on one or more activations."""

    node: torch.fx.Node
    arguments: list[Any]
    keywords: dict[str, Any]
    module: str
    name: str

    @property
    def function(self) -> Any:
        """Return the ATen overload that was called, for one in place the one that copies."""
        return functional(self.node)

    @property
    def packet(self) -> Any:
        """Return the ATen operator without its overload."""
        return getattr(self.function, "overloadpacket", None)

    @property
    def data(self) -> Data:
        """Return the first activation among the arguments."""
        return self.activations[0]

    @property
    def activations(self) -> list[Data]:
        """Return all activations among the arguments, those of lists included."""
        found: list[Data] = []
        for value in self.arguments:
            items = value if isinstance(value, list) else [value]
            found += [item for item in items if isinstance(item, Data)]
        return found

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or name."""
        if index < len(self.arguments):
            return self.arguments[index]
        return self.keywords.get(name, default)

    def refuse(self, reason: str) -> CannotPack:
        """Return the error for this call."""
        return CannotPack(reason, self.module, self.name)

    def shape(self, leading: bool | None = None) -> tuple[int, ...]:
        """Return the result's shape of one sample, after a check of its batch axis."""
        leading = self.data.leading if leading is None else leading
        return self.shape_of(self.node.meta["val"], leading)

    def shape_of(self, result: Tensor, leading: bool) -> tuple[int, ...]:
        """Return the shape of one sample of a traced tensor, after a check of its batch axis."""
        sizes = list(result.shape)
        place = 1 if leading else 0
        if len(sizes) < 2 or not _same_size(sizes[place], self.data.batch):
            raise self.refuse(
                "its result does not keep the batch as its first axis; keep [batch, ...] and give "
                "every sample its own output"
            )
        sizes.pop(place)
        if not all(isinstance(size, int) for size in sizes):
            raise self.refuse("a size beside the batch depends on the batch")
        return tuple(int(size) for size in sizes)

    def then(self, make: type[Node], **fields: Any) -> Data:
        """Append a node behind the first activation."""
        node = make(module=self.module, shape=self.shape(), sources=(self.data.node,), **fields)
        return self.now(node)

    def now(self, node: Node, leading: bool | None = None) -> Data:
        """Return a node as the result of this call."""
        leading = self.data.leading if leading is None else leading
        found = self.node.meta["val"]
        dtype = found.dtype if isinstance(found, Tensor) else torch.float32
        return Data(node, self.data.batch, dtype, leading)


def _same_size(size: object, batch: object) -> bool:
    return not isinstance(size, int) and str(size) == str(batch)
