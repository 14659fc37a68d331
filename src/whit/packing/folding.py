"""Folding: steps become thresholds, batch norm becomes part of the matrix before it.

A step after a chain of monotone operators is a threshold on what enters the chain. The threshold
is found by asking the real torch operators, number by number, so it is exact by construction.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    LinearNode,
    Node,
    PadNode,
    PoolNode,
    ReshapeNode,
    StepNode,
    ThresholdNode,
)

_FLOAT_LIMIT = 2.0**100
_EXACT_INTEGER = 1 << 24

Judge = Callable[[Tensor], Tensor]


def fold(nodes: Sequence[Node]) -> list[Node]:
    """Return a chain without steps, and without batch norms right behind a matrix."""
    folded: list[Node] = []
    signs = False
    sums: LinearNode | None = None
    for node in _join_padding(nodes):
        if isinstance(node, StepNode):
            bound = sums.weight[0].numel() if sums is not None else 0
            _fold_step(folded, node, bound)
            signs, sums = True, None
        elif isinstance(node, LinearNode):
            folded.append(node)
            levels = row_scales(node.weight) is not None
            exact = signs and levels and node.weight[0].numel() < _EXACT_INTEGER
            signs, sums = False, node if exact else None
        else:
            folded.append(node)
            if isinstance(node, ReshapeNode):
                sums = None
            elif isinstance(node, PadNode):
                signs, sums = signs and abs(node.value) == 1, None
            elif isinstance(node, ElementwiseNode):
                signs = False
    return _fold_batch_norms(folded)


def _join_padding(nodes: Sequence[Node]) -> list[Node]:
    """Make even padding with -1, 0, +1 a part of the convolution behind it."""
    joined: list[Node] = []
    for node in nodes:
        before = joined[-1] if joined else None
        if isinstance(node, ConvNode) and isinstance(before, PadNode) and node.pad == (0, 0):
            top, left, below, right = before.pads
            if (top, left) == (below, right) and before.value in (-1.0, 0.0, 1.0) and top + left:
                joined[-1] = replace(node, pad=(top, left), pad_value=int(before.value))
                continue
        joined.append(node)
    return joined


def _fold_step(folded: list[Node], step: StepNode, bound: int) -> None:
    """Replace the monotone operators at the end of ``folded`` and the step by a threshold.

    ``bound`` is the largest possible sum of the integer sums before them, 0 when there are none.
    """
    chain: list[ElementwiseNode] = []
    while folded and isinstance(folded[-1], ElementwiseNode) and folded[-1].per_channel:
        chain.insert(0, folded.pop())  # type: ignore[arg-type]
    position = len(folded) - 1
    while position >= 0 and isinstance(folded[position], PoolNode):
        position -= 1
    base = folded[position] if position >= 0 else None
    integers = False
    bias: Tensor | None = None
    scale: Tensor | None = None
    if isinstance(base, LinearNode):
        bias, scale = base.bias, row_scales(base.weight)
        integers = bound > 0
        levels = base.weight if scale is None else base.weight / _rows(scale, base.weight)
        folded[position] = replace(base, weight=levels, bias=None)
    judge = _judge(chain, step, scale, bias)
    channels = step.shape[0]
    if integers:
        thresholds, flipped = search_threshold(judge, channels, bound, _from_integer)
    else:
        thresholds, flipped = search_threshold(judge, channels, None, _from_ordered)
    folded.append(ThresholdNode(step.module, step.shape, thresholds, flipped, integers))
    _append_levels(folded, step)


def _append_levels(folded: list[Node], step: StepNode) -> None:
    """Append the affine step from -1, +1 to two other values."""
    low, high = step.values[0], step.values[2]
    if abs(low) == 1 and high == -low:
        return
    factor = torch.tensor(abs(high - low) / 2, dtype=torch.float32)
    shift = torch.tensor((high + low) / 2, dtype=torch.float32)
    for form, constant, apply in (("multiply", factor, factor.mul), ("add", shift, shift.add)):
        folded.append(ElementwiseNode(step.module, step.shape, apply, step.name, form, (constant,)))


def row_scales(weight: Tensor) -> Tensor | None:
    """Return the positive scale of each row of a matrix of levels; None when it is not one."""
    flat = weight.flatten(1).abs()
    scale = flat.amax(1)
    if bool(((flat != scale[:, None]) & (flat != 0)).any()):
        return None
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape((-1,) + (1,) * (weight.dim() - 1))


def _judge(
    chain: Sequence[ElementwiseNode], step: StepNode, scale: Tensor | None, bias: Tensor | None
) -> Judge:
    """Return the function that says, for a number per channel [K, C], whether it ends in +1."""
    shape = (1,) * (len(step.shape) - 1)
    top = max(step.values)

    def judge(numbers: Tensor) -> Tensor:
        x = numbers.to(torch.float32)
        x = x if scale is None else x * scale
        x = x if bias is None else x + bias
        x = x.reshape(*x.shape, *shape)
        for node in chain:
            x = node.apply(x)
        below, at, above = (value == top for value in step.values)
        center = torch.tensor(step.center, dtype=torch.float32)
        result = (x < center) & below | (x == center) & at | (x > center) & above
        return result.reshape(numbers.shape)

    return judge


def search_threshold(
    judge: Judge, channels: int, bound: int | None, number: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Find where a monotone judgement changes, by bisection in all channels at once.

    Args:
        judge: numbers [1, channels] -> booleans, monotone in each channel.
        channels: how many.
        bound: integers from -bound to bound, or None for the float32 line.
        number: from the int64 position on the line to the number.

    Returns:
        Thresholds [channels] (float32 or int64) and flipped [channels]. A channel that never
        changes has the threshold -inf (or -bound - 1): +1, or -1 when flipped.
    """
    limit = bound if bound is not None else int(_to_ordered(torch.tensor(_FLOAT_LIMIT)))
    low = torch.full((channels,), -limit, dtype=torch.int64)
    high = torch.full((channels,), limit, dtype=torch.int64)
    first, last = judge(number(low)[None])[0], judge(number(high)[None])[0]
    while bool((high - low > 1).any()):
        middle = (low + high).div(2, rounding_mode="floor")
        same = judge(number(middle)[None])[0] == first
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    constant = first == last
    flipped = torch.where(constant, ~first, first)
    found = number(torch.where(flipped, low, high))
    never = number(low).new_full((), float("-inf")) if bound is None else torch.tensor(-bound - 1)
    return torch.where(constant, never, found), flipped


def _from_integer(position: Tensor) -> Tensor:
    return position


def _from_ordered(position: Tensor) -> Tensor:
    """Return the float32 at a position on the ordered line; 0 is at 0."""
    bits = position.abs().to(torch.int32).view(torch.float32)
    return torch.where(position < 0, -bits, bits)


def _to_ordered(value: Tensor) -> Tensor:
    bits = value.abs().view(torch.int32).to(torch.int64)
    return torch.where(value < 0, -bits, bits)


def _fold_batch_norms(nodes: Sequence[Node]) -> list[Node]:
    """Multiply a batch norm into the matrix right before it, in float64."""
    result: list[Node] = []
    for node in nodes:
        before = result[-1] if result else None
        batch_norm = isinstance(node, ElementwiseNode) and node.form == "batch_norm"
        if batch_norm and isinstance(node, ElementwiseNode) and isinstance(before, LinearNode):
            scale, shift = node.constants
            weight = before.weight.double() * _rows(scale, before.weight)
            bias = shift if before.bias is None else before.bias.double() * scale + shift
            result[-1] = replace(before, weight=weight.float(), bias=bias.float())
        else:
            result.append(node)
    return result
