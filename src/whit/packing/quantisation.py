"""Post-training quantisation: a folded float graph becomes one of 8-bit integers.

Every matrix that is still float32 gets weights of 8 bits with one scale per output channel, and
what it reads is rounded to 8 bits with one scale. Ranges come from calibration samples: the largest
magnitude seen (0..255 where no value is negative, else -127..127). Folding then turns what lies
between two such layers into one integer multiplication.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.errors import CannotPack, NoEffect
from whit.packing.emission import FormatRules, operator_of
from whit.packing.graph_nodes import (
    ElementwiseNode,
    EmbeddingNode,
    InputNode,
    LinearNode,
    Node,
    PoolNode,
    ReshapeNode,
    RouteNode,
    in_order,
    multiplied,
)
from whit.packing.integer_sources import integer_matrix, integer_source, scaled_grid, weight_grid
from whit.runtime.layout import Activation
from whit.runtime.operators.contract import to_float

_LARGEST_WEIGHT = 127
_CHUNK = 64


def quantize_graph(output: Node, samples: Tensor) -> Node:
    """Round weights and activations of a folded graph to 8 bits.

    Args:
        output: from ``fold``; fold the result again.
        samples: raw inputs [n, ...] to take ranges from.

    Raises:
        NoEffect: there is no float matrix to quantise.
        CannotPack: a matrix reads the result of a route.
    """
    found = _Rounder()
    result = found.graph(output, samples.numpy())
    if not found.changed:
        raise NoEffect(
            "Calibration samples were given, but every weight is stored in 8 bits or fewer "
            "already: there is nothing to quantise. Leave the calibration out."
        )
    return result


@dataclass
class _Range:
    low: float = float("inf")
    high: float = float("-inf")

    @property
    def grid(self) -> tuple[int, int, float]:
        """Return lowest and highest integer, and the size of one step as float32."""
        low, high = (0, 255) if self.low >= 0 else (-127, 127)
        largest = max(abs(self.low), abs(self.high)) or 1.0
        return low, high, float(np.float32(largest / high))

    def widen(self, values: NDArray[np.generic]) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))


@dataclass
class _Rounder:
    changed: bool = False
    rules: FormatRules = field(default_factory=FormatRules)

    def graph(self, output: Node, samples: NDArray[np.generic]) -> Node:
        """Quantise one graph, the program or a subprogram, that reads the samples."""
        nodes = in_order(output)
        targets = {id(node) for node in nodes if _is_float_matrix(node)}
        rounded = {
            id(_root(node.sources[0]))
            for node in nodes
            if id(node) in targets and isinstance(node, LinearNode) and not _reads_integers(node)
        }
        ranges = {number: _Range() for number in rounded}
        routes = self._calibrate(nodes, samples, ranges)
        done: dict[int, Node] = {}
        for node in nodes:
            sources = tuple(done[id(source)] for source in node.sources)
            new = replace(node, sources=sources)
            if isinstance(node, LinearNode | EmbeddingNode) and id(node) in targets:
                new = replace(node, sources=sources, weight=_rounded_weight(node.weight))
                if isinstance(new, LinearNode):
                    new = _with_whole_bias(new, ranges.get(id(_root(node.sources[0]))))
                self.changed = True
            elif isinstance(node, RouteNode):
                inputs = routes[id(node)]
                members = tuple((start, self.graph(end, inputs)) for start, end in node.members)
                new = replace(node, sources=sources, members=members)
            if id(node) in rounded:
                new = _rounded_values(new, ranges[id(node)])
            done[id(node)] = new
        return done[id(output)]

    def _calibrate(
        self, nodes: list[Node], samples: NDArray[np.generic], ranges: dict[int, _Range]
    ) -> dict[int, NDArray[np.generic]]:
        """Fill the ranges; return what each route hands to its members."""
        routes: dict[int, list[NDArray[np.generic]]] = {}
        for start in range(0, len(samples), _CHUNK):
            values = self._evaluate(nodes, samples[start : start + _CHUNK])
            for node, value in values:
                if id(node) in ranges:
                    if value is None:
                        raise CannotPack(
                            "a matrix reads the result of a route; post-training quantisation "
                            "needs a route to be the output",
                            node.module,
                        )
                    ranges[id(node)].widen(to_float(value))
                if isinstance(node, RouteNode):
                    handed = next(v for n, v in values if n is node.sources[1])
                    assert handed is not None
                    routes.setdefault(id(node), []).append(handed)
        return {number: np.concatenate(parts) for number, parts in routes.items()}

    def _evaluate(
        self, nodes: list[Node], x: NDArray[np.generic]
    ) -> list[tuple[Node, NDArray[np.generic] | None]]:
        """Return the value of each node, None behind a route."""
        values: dict[int, NDArray[np.generic] | None] = {}
        domains: dict[int, Activation] = {}
        for node in nodes:
            if isinstance(node, InputNode):
                domain = node.domain or _domain_of(x)
                x = x.astype(np.int32) if domain == "int32" else x
                values[id(node)], domains[id(node)] = x, Activation(node.shape, domain)
                continue
            read = [v for v in (values[id(source)] for source in node.sources) if v is not None]
            if isinstance(node, RouteNode) or len(read) < len(node.sources):
                values[id(node)] = None
                domains[id(node)] = Activation(node.shape, "float32")
                continue
            before = [domains[id(source)] for source in node.sources]
            operator = operator_of(node, before[0], self.rules)
            with np.errstate(all="ignore"):
                values[id(node)] = operator.run(read[0], *read[1:])
            domains[id(node)] = operator.result(*before)
        return [(node, values[id(node)]) for node in nodes]


def _domain_of(x: NDArray[np.generic]) -> str:
    return "sign" if x.dtype == np.bool_ else str(x.dtype)


def _is_float_matrix(node: Node) -> bool:
    if isinstance(node, EmbeddingNode):
        return weight_grid(node.weight) is None
    if not isinstance(node, LinearNode):
        return False
    return weight_grid(node.weight) is None or integer_source(node.sources[0]) is None


def _reads_integers(node: LinearNode) -> bool:
    """Say whether a matrix, once rounded, can sum up the integers that it is given."""
    rounded = replace(node, weight=_rounded_weight(node.weight))
    return node.exact or integer_matrix(rounded, node.sources[0]) is not None


def _root(source: Node) -> Node:
    """Return where the values of a source are made: pools and reshapes only choose and move."""
    while isinstance(source, PoolNode | ReshapeNode):
        source = source.sources[0]
    return source


def _rounded_weight(weight: Tensor) -> Tensor:
    grid = weight_grid(weight)
    if grid is not None and int(grid[0].abs().max()) <= _LARGEST_WEIGHT:
        return weight
    scale = weight.flatten(1).abs().amax(1) / _LARGEST_WEIGHT
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    shape = (-1,) + (1,) * (weight.dim() - 1)
    return scaled_grid(torch.round(weight / scale.reshape(shape)), scale)


def _with_whole_bias(node: LinearNode, seen: _Range | None) -> LinearNode:
    """Round the bias to whole sums, as integer hardware and ONNX Runtime hold it."""
    read = integer_source(node.sources[0])
    scale = None if read is None else read.scale
    scale = scale if seen is None else seen.grid[2]
    grid = weight_grid(node.weight)
    if node.bias is None or scale is None or grid is None:
        return node
    unit = grid[1].double() * scale
    return replace(node, bias=(torch.round(node.bias.double() / unit) * unit).float())


def _rounded_values(node: Node, seen: _Range) -> Node:
    """Return multiply, round, clamp, multiply behind a node."""
    low, high, scale = seen.grid
    if not np.isfinite(scale):
        raise CannotPack("its values on the calibration samples are not finite", node.module)
    for step in _rounding(
        multiplied(node, torch.tensor(1 / scale, dtype=torch.float32)), low, high
    ):
        node = step
    return multiplied(node, torch.tensor(scale, dtype=torch.float32))


def _rounding(scaled: Node, low: int, high: int) -> Iterator[Node]:
    limits = torch.tensor([low, high], dtype=torch.float32)
    rounded = ElementwiseNode(
        module=scaled.module,
        shape=scaled.shape,
        sources=(scaled,),
        apply=torch.round,
        name="round",
        form="round",
        discrete=True,
    )
    yield rounded
    yield replace(
        rounded,
        sources=(rounded,),
        apply=lambda x: torch.clamp(x, limits[0], limits[1]),
        name="clamp",
        form="clamp",
        constants=(limits[0], limits[1]),
        discrete=False,
    )
