"""Which activations are integers times a scale, so that a matrix can be summed up exactly.

Quantisers give x = scale * (k + offset) with integers k. A matrix that reads x may read k instead
and take scale and offset along, if its weights are integers as well.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    InputNode,
    IntegerNode,
    LinearNode,
    Node,
    OperatorNode,
    PadNode,
    PoolNode,
    ReshapeNode,
)
from whit.packing.integer_grid import integer_grid
from whit.runtime.layout import SIGN, integer_domain
from whit.runtime.operators import Quantize, Transpose

_LIMIT = 1 << 31
_LARGEST = {"uint8": 255, "int8": 128, "int16": 32768, SIGN: 1}
_LOWEST = {"uint8": 0, "int8": -128, "int16": -32768, SIGN: -1}
_HIGHEST = {"uint8": 255, "int8": 127, "int16": 32767, SIGN: 1}


@dataclass(frozen=True)
class IntegerSource:
    """x = scale * (k + offset), k the integers of ``node``.

    Args:
        node: gives the integers.
        domain: of the integers.
        scale: not 0.
        offset: added to each integer.
        bound: largest magnitude of k, as a reader of the file knows it.
    """

    node: Node
    domain: str
    scale: float
    offset: float
    bound: int


def integer_source(node: Node) -> IntegerSource | None:
    """Return the integers behind an activation; None when there are none."""
    if isinstance(node, IntegerNode | InputNode):
        known = _LARGEST.get(node.domain)
        return None if known is None else IntegerSource(node, node.domain, 1.0, 0.0, known)
    moves = isinstance(node, PoolNode | ReshapeNode | PadNode) or (
        isinstance(node, OperatorNode) and isinstance(node.operator, Transpose)
    )
    if not moves and not isinstance(node, ElementwiseNode):
        return None
    before = integer_source(node.sources[0])
    if before is None:
        return None
    return _through(node, before) if isinstance(node, ElementwiseNode) else _moved(node, before)


def _moved(node: Node, before: IntegerSource) -> IntegerSource | None:
    """Follow what moves or chooses numbers."""
    if isinstance(node, PoolNode) and before.scale < 0:
        return None
    if isinstance(node, PadNode):
        value = pad_integer(before, node.value)
        if value is None or (before.domain == SIGN and value == 0):
            return None
        node = replace(node, value=float(value))
    return replace(before, node=replace(node, sources=(before.node,)))


def _through(node: ElementwiseNode, before: IntegerSource) -> IntegerSource | None:
    """Follow multiplication and addition of one number."""
    if len(node.constants) != 1 or node.constants[0].numel() != 1:
        return None
    constant = float(node.constants[0])
    if node.form == "multiply" and constant != 0:
        return replace(before, scale=before.scale * constant)
    if node.form == "divide":
        return replace(before, scale=before.scale / constant)
    if node.form not in ("add", "subtract"):
        return None
    shift = (constant if node.form == "add" else -constant) / before.scale + before.offset
    return replace(before, offset=shift)


def _shifted(before: IntegerSource) -> IntegerSource | None:
    """Return k + offset as integers of their own, where it is whole and the result small."""
    shift = before.offset
    if shift != round(shift) or before.domain == SIGN:
        return None
    low = _LOWEST[before.domain] + round(shift)
    high = _HIGHEST[before.domain] + round(shift)
    if not -32768 <= low <= high <= 32767:
        return None
    domain = integer_domain(low, high)
    source = before.node
    node = IntegerNode(
        module=source.module,
        shape=source.shape,
        sources=(source,),
        operator=Quantize(-shift, 1.0, low, high),
        domain=domain,
        bound=max(abs(low), abs(high)),
    )
    return IntegerSource(node, domain, before.scale, 0.0, _LARGEST[domain])


def pad_integer(source: IntegerSource, value: float) -> int | None:
    """Return the integer that stands for a padding with ``value``; None where there is none."""
    found = value / source.scale - source.offset
    fits = _LOWEST[source.domain] <= found <= _HIGHEST[source.domain]
    return int(found) if found == round(found) and fits else None


@dataclass(frozen=True, eq=False)
class IntegerMatrix:
    """A matrix on integers: W x = factors * (``node``'s exact sums) + shifts.

    Args:
        node: the matrix of integers without bias, reading integers.
        factors: float64 [rows].
        shifts: float64 [rows], the bias included.
        bound: no sum is larger in magnitude.
    """

    node: LinearNode
    factors: Tensor
    shifts: Tensor
    bound: int


def integer_matrix(node: LinearNode, source: Node) -> IntegerMatrix | None:
    """Return a matrix as integers on integers; None where it, or what it reads, is not.

    Args:
        node: linear or convolution as traced.
        source: what it reads, folded.
    """
    found = integer_source(source)
    if found is not None and isinstance(node, ConvNode) and node.pad != (0, 0):
        value = pad_integer(found, float(node.pad_value))
        if value is None or not -128 <= value <= 127:
            found = _shifted(found)
            value = None if found is None else pad_integer(found, float(node.pad_value))
            found = None if value is None else found
    grid = None if found is None else weight_grid(node.weight)
    if found is None or grid is None:
        return None
    integers, scale = grid
    sums = integers.flatten(1).abs().sum(1)
    columns = integers[0].numel()
    largest = 1 << max(0, int(integers.abs().max()) - 1).bit_length()
    if columns * max(1, largest) * found.bound >= _LIMIT or columns >= 1 << 24:
        return None
    factors = scale.double() * abs(found.scale)
    integers = integers if found.scale > 0 else -integers  # a pool may follow: factors above 0
    total = integers.flatten(1).sum(1).double() * found.offset * factors
    shifts = total if node.bias is None else total + node.bias.double()
    weight = integers.to(torch.float32)
    matrix = replace(node, weight=weight, bias=None, exact=True, sources=(found.node,))
    if isinstance(matrix, ConvNode) and matrix.pad != (0, 0):
        value = pad_integer(found, float(matrix.pad_value))
        matrix = replace(matrix, pad_value=value or 0)
    return IntegerMatrix(matrix, factors, shifts, int(sums.max()) * found.bound)


def matrix_on(node: LinearNode, source: Node) -> Node:
    """Return a matrix on a folded source: on its integers where both allow that.

    Scale and offset of the integers become part of the weight and the bias.
    """
    found = None if node.exact else integer_matrix(node, source)
    if found is None:
        return replace(node, sources=(source,))
    weight = scaled_grid(found.node.weight, found.factors)
    bias = found.shifts.float() if bool(found.shifts.any()) else None
    return replace(found.node, weight=weight, bias=bias, exact=False)


def weight_grid(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return a weight as integers (its shape, int64) and positive scales float32 [rows]."""
    flat = weight.detach().flatten(1).to(torch.float32)
    found = integer_grid(flat.numpy())
    if found is None:
        return None
    integers, scale = found
    scales = torch.from_numpy(scale).reshape(-1)
    filled = torch.ones(flat.shape[0]) if scales.numel() == 0 else scales.expand(flat.shape[0])
    return torch.from_numpy(integers).to(torch.int64).reshape(weight.shape), filled.clone()


def scaled_grid(integers: Tensor, factors: Tensor) -> Tensor:
    """Return integers times one float32 factor a row, rounded once."""
    shape = (-1,) + (1,) * (integers.dim() - 1)
    return integers.to(torch.float32) * factors.to(torch.float32).reshape(shape)
