"""Folding: quantisers become integer operators, batch norm becomes part of the matrix before it.

A sign or a quantiser after a chain of monotone operators is a staircase on what enters the chain.
Where a matrix of integers on integers stands before it, everything between becomes thresholds (or
one multiplication) on exact sums, and no float is left between two layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whit.errors import CannotPack
from whit.packing.chains import Chain, fold_chain
from whit.packing.formats import choose_storage
from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    LinearNode,
    Node,
    PadNode,
    PoolNode,
    ReshapeNode,
    RouteNode,
    count_uses,
    in_order,
)
from whit.packing.integer_sources import matrix_on, scaled_grid, weight_grid

MOST_ENTRIES = 256  # of a code book

Rule = Callable[[Node, Node, dict[int, int]], Node]


def fold(output: Node) -> Node:
    """Return a graph without signs, rounding, and batch norms right behind a matrix.

    Args:
        output: the node that gives the output; its sources are the graph.

    Raises:
        CannotPack: a quantiser has too many values, or values without limits.
    """
    output = _rewrite(output, _join_padding)
    output = _fold_chains(output)
    return _rewrite(output, _fold_batch_norm)


def _rewrite(output: Node, rule: Rule) -> Node:
    """Rebuild a graph, every node changed by a rule (old node, node on new sources, uses)."""
    nodes = in_order(output)
    uses = count_uses(nodes)
    done: dict[int, Node] = {}
    for node in nodes:
        done[id(node)] = rule(node, _moved(node, done), uses)
    return done[id(output)]


def _moved(node: Node, done: dict[int, Node]) -> Node:
    sources = tuple(done[id(source)] for source in node.sources)
    same = all(a is b for a, b in zip(sources, node.sources, strict=True))
    return node if same else replace(node, sources=sources)


def _join_padding(old: Node, node: Node, uses: dict[int, int]) -> Node:
    """Make even padding with -1, 0, +1 a part of the convolution behind it."""
    before = node.sources[0] if node.sources else None
    if isinstance(node, ConvNode) and isinstance(before, PadNode) and node.pad == (0, 0):
        top, left, below, right = before.pads
        if (top, left) == (below, right) and before.value in (-1.0, 0.0, 1.0) and top + left:
            sources = before.sources
            return replace(node, pad=(top, left), pad_value=int(before.value), sources=sources)
    return node


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which nodes end a chain, and which are folded with one."""

    chains: dict[int, Chain]
    absorbed: set[int]


def _fold_chains(output: Node) -> Node:
    nodes = in_order(output)
    uses = count_uses(nodes)
    plan = _plan(nodes, uses)
    done: dict[int, Node] = {}
    for node in nodes:
        if id(node) in plan.absorbed:
            continue
        chain = plan.chains.get(id(node))
        if chain is not None:
            done[id(node)] = fold_chain(chain, done)
        elif isinstance(node, LinearNode):
            done[id(node)] = matrix_on(node, done[id(node.sources[0])])
        elif isinstance(node, RouteNode):
            members = tuple((source, fold(member)) for source, member in node.members)
            done[id(node)] = replace(_moved(node, done), members=members)  # type: ignore[call-arg]
        else:
            done[id(node)] = _moved(node, done)
    return done[id(output)]


def _plan(nodes: list[Node], uses: dict[int, int]) -> _Plan:
    """Cut the graph into chains of elementwise nodes, each with the matrix that it may fold with.

    A chain is read by nobody but its end. Pools and reshapes that keep the channels may lie between
    the matrix and the chain.
    """
    reader = {id(source): node for node in nodes for source in node.sources}
    plan = _Plan({}, set())
    for node in nodes:
        if not _links(node):
            continue
        after = reader.get(id(node))
        if uses[id(node)] == 1 and after is not None and _links(after):
            plan.absorbed.add(id(node))
            continue
        links: list[ElementwiseNode] = [node]  # type: ignore[list-item]
        while _links(links[0].sources[0]) and uses[id(links[0].sources[0])] == 1:
            links.insert(0, links[0].sources[0])  # type: ignore[arg-type]
        chain = _with_matrix(links, uses)
        plan.chains[id(node)] = chain
        if chain.matrix is not None:
            plan.absorbed.update(id(part) for part in (chain.matrix, *chain.between))
    return plan


def _links(node: Node) -> bool:
    return isinstance(node, ElementwiseNode) and node.per_channel


def _with_matrix(links: list[ElementwiseNode], uses: dict[int, int]) -> Chain:
    if not any(link.discrete for link in links):
        return Chain(links)
    between: list[Node] = []
    base = links[0].sources[0]
    while uses[id(base)] == 1 and isinstance(base, PoolNode | ReshapeNode):
        if base.shape[0] != base.sources[0].shape[0]:
            return Chain(links)
        between.insert(0, base)
        base = base.sources[0]
    if isinstance(base, LinearNode) and uses[id(base)] == 1 and channels_first(base):
        return Chain(links, base, between)
    return Chain(links)


def channels_first(node: LinearNode) -> bool:
    """Say whether the outputs of a matrix are the first axis of a sample."""
    return isinstance(node, ConvNode) or len(node.shape) == 1


def _fold_batch_norm(old: Node, node: Node, uses: dict[int, int]) -> Node:
    """Multiply a batch norm into the matrix right before it, in float64."""
    if not isinstance(node, ElementwiseNode) or node.form != "batch_norm":
        return node
    reshapes: list[Node] = []
    base, old_base = node.sources[0], old.sources[0]
    while isinstance(base, ReshapeNode) and base.shape[0] == base.sources[0].shape[0]:
        if uses[id(old_base)] != 1:
            return node
        reshapes.insert(0, base)
        base, old_base = base.sources[0], old_base.sources[0]
    if not isinstance(base, LinearNode) or uses[id(old_base)] != 1 or not channels_first(base):
        return node
    scale, shift = node.constants
    grid = weight_grid(base.weight)
    if grid is None:
        rows = scale.reshape((-1,) + (1,) * (base.weight.dim() - 1))
        weight = (base.weight.double() * rows).float()
    else:
        weight = scaled_grid(grid[0], grid[1].double() * scale)
    if _has_few_values(base.weight):
        apart = _bytes_of(base.weight) + 4 * scale.numel()
        if apart < _bytes_of(weight):
            return node  # a code book would be lost; an operator of its own takes less
    bias = shift if base.bias is None else base.bias.double() * scale + shift
    result: Node = replace(base, weight=weight, bias=bias.float(), module=base.module)
    for reshape in reshapes:
        result = replace(reshape, sources=(result,))
    return result


def _has_few_values(weight: Tensor) -> bool:
    flat = weight.reshape(-1)
    sample = flat[:: max(1, flat.numel() // 4096)]
    return _distinct(sample) <= MOST_ENTRIES and _distinct(flat) <= MOST_ENTRIES


def _distinct(flat: Tensor) -> int:
    return len(torch.unique(flat))


def _bytes_of(weight: Tensor) -> int:
    rows = weight.detach().to(torch.float32).flatten(1).numpy()
    return choose_storage(rows).weight.stored_bytes


def check_written(node: ElementwiseNode) -> CannotPack:
    """Return the error for an elementwise step that only folding could have written."""
    return CannotPack(
        "this operator is packed only as a part of a quantiser (round and clamp); use ReLU or "
        "another activation of the format instead",
        node.module,
        node.name,
    )
