"""A chain of elementwise steps that ends in a quantiser, with the matrix before it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit.errors import CannotPack
from whit.packing.graph_nodes import (
    ElementwiseNode,
    IntegerNode,
    LinearNode,
    Node,
    OperatorNode,
    PoolNode,
    added,
    multiplied,
)
from whit.packing.integer_grid import integer_grid
from whit.packing.integer_sources import (
    IntegerMatrix,
    integer_matrix,
    integer_source,
    matrix_on,
    weight_grid,
)
from whit.packing.requantising import LinearForm, in_a_byte, linear_form, requantised, rounding_node
from whit.packing.staircases import Function, Line, Staircase, find_staircase
from whit.runtime.layout import SIGN, integer_domain
from whit.runtime.operators import Levels, Lookup, Operator, Sign, Threshold

# Up to so many steps a quantiser is stored as thresholds, exactly; above as one multiplication,
# which takes 12 bytes a channel.
MOST_THRESHOLDS = 7
_LINEAR = ("multiply", "divide", "add", "subtract", "subtract_from")


@dataclass(frozen=True, eq=False)
class Chain:
    """Elementwise steps in order.

    Args:
        links: the steps; nobody else reads those before the last.
        matrix: the linear or convolution that they fold with, or None.
        between: pools and reshapes between matrix and steps.
    """

    links: list[ElementwiseNode]
    matrix: LinearNode | None = None
    between: list[Node] = field(default_factory=list)


def fold_chain(chain: Chain, done: dict[int, Node]) -> Node:
    """Return the chain with its quantiser folded; ``done`` holds the folded nodes before it."""
    begin, end = _quantiser(chain.links)
    links, matrix, between = chain.links, chain.matrix, chain.between
    if end == 0:
        return _append(done[id(links[0].sources[0])], links)
    if matrix is None:
        base = _append(done[id(links[0].sources[0])], links[:begin])
        folded = _fold_without_matrix(links[begin:end], base)
    elif begin > 0:
        base = _append(matrix_on(matrix, done[id(matrix.sources[0])]), between)
        folded = _fold_without_matrix(links[begin:end], _append(base, links[:begin]))
    else:
        folded = _fold_with_matrix(links[:end], matrix, between, done[id(matrix.sources[0])])
    return _append(folded, links[end:])


def _append(source: Node, nodes: Sequence[Node]) -> Node:
    for node in nodes:
        source = replace(node, sources=(source,))
    return source


def _quantiser(links: list[ElementwiseNode]) -> tuple[int, int]:
    """Return where the monotone steps of the quantiser begin and end; (0, 0) without one."""
    last = max((k for k, link in enumerate(links) if link.discrete), default=-1)
    if last < 0:
        return 0, 0
    end = last + 1
    for place, link in enumerate(links[end:], start=end):
        if link.form in ("clamp", "relu"):
            end = place + 1
        elif link.form not in _LINEAR or _per_channel(link):
            break
    begin = max((k + 1 for k, link in enumerate(links[:last]) if not link.monotone), default=0)
    return begin, end


def _fold_without_matrix(links: list[ElementwiseNode], base: Node) -> Node:
    """Fold a quantiser of values that come from anywhere."""
    channels = links[0].shape[0] if any(_per_channel(link) for link in links) else 1
    found = integer_source(base)
    bare = found is not None and found.node is base
    begin, form = _rounding_part(links)
    if form is not None and form.steps > MOST_THRESHOLDS:
        return rounding_node(links[begin:], _append(base, links[:begin]), form)
    line = Line(found.bound if found is not None and bare else None)
    function = _function(links, None, None)
    return _written(links[-1], function, channels, line, base)


def _per_channel(link: ElementwiseNode) -> bool:
    return link.form == "batch_norm" or any(c.numel() > 1 for c in link.constants)


def _fold_with_matrix(
    links: list[ElementwiseNode], matrix: LinearNode, between: list[Node], source: Node
) -> Node:
    """Fold a quantiser of the sums of a matrix."""
    exact = integer_matrix(matrix, source)
    rows = matrix.weight.shape[0]
    begin, form = _rounding_part(links)
    if form is not None and form.steps > MOST_THRESHOLDS:
        whole = None
        if exact is not None and begin == 0:
            whole = linear_form(links, exact.factors, exact.shifts)
        if exact is None or whole is None or _turned_behind_pool(whole, between):
            base = _append(matrix_on(matrix, source), [*between, *links[:begin]])
            return rounding_node(links[begin:], base, form)
        exact, whole = _rising(exact, whole)
        return _requantised(links[-1], whole, _append(exact.node, between), exact.bound)
    if exact is None:
        sums, scale = _float_sums(matrix, source)
        base = _append(sums, between)
        return _written(links[-1], _function(links, scale, matrix.bias), rows, Line(None), base)
    base = _append(exact.node, between)
    function = _function(links, exact.factors, exact.shifts)
    return _written(links[-1], function, rows, Line(exact.bound), base)


def _requantised(last: ElementwiseNode, form: LinearForm, base: Node, bound: int) -> Node:
    form, moved = in_a_byte(form)
    node = requantised(last, form, base, bound)
    return added(node, torch.tensor(-float(moved))) if moved else node


def _rounding_part(links: list[ElementwiseNode]) -> tuple[int, LinearForm | None]:
    """Return where the part begins that is one rounding of a linear function, and this part.

    Before it there may be any monotone activation, such as a sigmoid.
    """
    for begin in range(len(links)):
        form = linear_form(links[begin:], torch.ones(1), torch.zeros(1))
        if form is not None:
            return begin, form
        if links[begin].discrete:
            break  # a quantiser before the quantiser: both together are one staircase
    return 0, None


def _turned_behind_pool(form: LinearForm, between: list[Node]) -> bool:
    """Say whether rows would have to be turned though a maximum is taken of their sums."""
    pooled = any(isinstance(node, PoolNode) for node in between)
    return pooled and bool((form.factors < 0).any())


def _rising(exact: IntegerMatrix, form: LinearForm) -> tuple[IntegerMatrix, LinearForm]:
    """Turn rows whose result falls."""
    factors = form.factors.expand(exact.node.weight.shape[0])
    signs = torch.where(factors < 0, -1.0, 1.0).to(torch.float32)
    weight = exact.node.weight * signs.reshape((-1,) + (1,) * (exact.node.weight.dim() - 1))
    node = replace(exact.node, weight=weight)
    return replace(exact, node=node), replace(form, factors=factors.abs())


def _float_sums(matrix: LinearNode, source: Node) -> tuple[LinearNode, Tensor | None]:
    """Return the matrix without bias; with levels -s, 0, +s also without its scales."""
    grid = weight_grid(matrix.weight)
    if grid is None or int(grid[0].abs().max()) > 1:
        return replace(matrix, bias=None, sources=(source,)), None
    integers = grid[0].to(torch.float32)
    return replace(matrix, weight=integers, bias=None, sources=(source,)), grid[1].double()


def _function(
    links: list[ElementwiseNode], factors: Tensor | None, shifts: Tensor | None
) -> Function:
    """Return the chain as a function of one number a channel, bias and scale included."""
    shape = (1,) * (len(links[0].shape) - 1)
    scale = None if factors is None else factors.to(torch.float32)
    shift = None if shifts is None else shifts.to(torch.float32)

    def function(numbers: Tensor) -> Tensor:
        x = numbers.to(torch.float32)[None]
        x = x if scale is None else x * scale
        x = x if shift is None else x + shift
        x = x.reshape(*x.shape, *shape)
        for link in links:
            x = link.apply(x).to(torch.float32)
        return x.reshape(numbers.shape)

    return function


def _written(
    last: ElementwiseNode, function: Function, channels: int, line: Line, base: Node
) -> Node:
    """Return the staircase on ``base`` as a runtime operator, times what its values need."""
    stairs = find_staircase(function, channels, line)
    if stairs is None:
        raise CannotPack(
            "a quantiser has more than 256 values; clamp before or after rounding",
            last.module,
            last.name,
        )
    if stairs.levels.numel() == 1:  # a dead layer: always the same value
        always = torch.tensor([line.always], dtype=stairs.thresholds.dtype)
        none = torch.zeros(1, dtype=torch.bool)
        return multiplied(_node(last, base, _threshold(always, none), SIGN, 1), stairs.levels[0])
    write: Callable[..., Node] = _signs if stairs.levels.numel() == 2 else _levels
    return write(last, stairs, line, base)


def _node(last: ElementwiseNode, base: Node, operator: Operator, domain: str, bound: int) -> Node:
    return IntegerNode(
        module=last.module,
        shape=last.shape,
        sources=(base,),
        operator=operator,
        domain=domain,
        bound=bound,
    )


def _signs(last: ElementwiseNode, stairs: Staircase, line: Line, base: Node) -> Node:
    thresholds, flipped = stairs.thresholds[:, 0], stairs.flipped
    nowhere = ~flipped & (thresholds == line.never)
    thresholds = torch.where(nowhere, thresholds.new_tensor(line.always), thresholds)
    node = _node(last, base, _threshold(thresholds, flipped | nowhere), SIGN, 1)
    low, high = (float(level) for level in stairs.levels)
    if abs(low) == 1 and high == -low:
        return node
    node = multiplied(node, torch.tensor((high - low) / 2, dtype=torch.float32))
    middle = (high + low) / 2
    return added(node, torch.tensor(middle, dtype=torch.float32)) if middle else node


def _threshold(thresholds: Tensor, flipped: Tensor) -> Operator:
    numbers, turned = _stored(thresholds), flipped.numpy()
    if (numbers == numbers[0]).all() and (turned == turned[0]).all():
        numbers, turned = numbers[:1], turned[:1]
    if numbers.size == 1 and numbers[0] == 0 and not turned.any():
        return Sign()
    return Threshold(numbers, turned if turned.any() else None)


def _stored(thresholds: Tensor) -> Any:
    """Return thresholds as NumPy numbers, integers in the smallest type that holds them."""
    if thresholds.dtype == torch.float32:
        return thresholds.numpy()
    numbers = thresholds.numpy()
    extreme = max(abs(int(numbers.min())), abs(int(numbers.max())))
    width = np.int8 if extreme < 1 << 7 else np.int16 if extreme < 1 << 15 else np.int32
    return numbers.astype(width)


def _levels(last: ElementwiseNode, stairs: Staircase, line: Line, base: Node) -> Node:
    values = stairs.levels.numpy()
    low, step, unit = _even(values)
    count = len(values) - 1
    numbers, turned = _stored(stairs.thresholds), stairs.flipped.numpy()
    if (numbers == numbers[:1]).all() and (turned == turned[0]).all():
        numbers, turned = numbers[:1], turned[:1]
    operator = Levels(numbers, turned if turned.any() else None, low, step)
    domain = integer_domain(low, low + step * count)
    node = _node(last, base, operator, domain, max(abs(low), abs(low + step * count)))
    if unit is None:
        return OperatorNode(
            module=last.module, shape=last.shape, sources=(node,), operator=Lookup(values)
        )
    return node if unit == 1 else multiplied(node, torch.tensor(unit, dtype=torch.float32))


def _even(values: Any) -> tuple[int, int, float | None]:
    """Return low, step and unit of evenly spaced values; (0, 1, None) for others."""
    grid = integer_grid(values[None])
    if grid is None:
        return 0, 1, None
    integers = grid[0][0].astype(np.int64)
    divisor = math.gcd(*(int(number) for number in integers))
    integers = integers // max(1, divisor)
    steps = np.diff(integers)
    low, step = int(integers[0]), int(steps[0])
    if (steps != step).any() or not -128 <= low <= 127 or not 1 <= step <= 255:
        return 0, 1, None
    scale = float(grid[1][0]) if grid[1].size else 1.0
    return low, step, scale * divisor
