"""`member` and `route` as ONNX nodes.

Standard ONNX could choose between networks with `If`, but only for a whole batch. So the graph
computes all members for all samples, and the weights of the answering ones decide: the numbers are
those of the file, the saving is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from whit.export.onnx_graph import Graph, Value, value_of
from whit.runtime.layout import Activation
from whit.runtime.operators import Route

NO_GROUP = 255


def write_route(
    graph: Graph, operator: Route, scores: Value, members: Sequence[Value], result: Activation
) -> Value:
    """Write the answer of the first network, or the mean of those that its margin calls for.

    Args:
        graph: where the nodes go.
        operator: margin, groups and strategies.
        scores: class scores of the first network, and the deciding scores behind them.
        members: what the members give, in their order.
        result: what the route gives.
    """
    classes = result.shape[0]
    first, deciding = graph.floats(scores), ""
    if operator.deciding:
        sizes = graph.integers(classes, operator.deciding)
        first, deciding = graph.nodes_of("Split", 2, first, sizes, axis=1)
    chances = graph.node("Softmax", first, axis=1)
    situation = _situation(graph, operator, first, deciding, classes)
    answers = [chances, *(graph.node("Softmax", graph.floats(v), axis=1) for v in members)]
    place = graph.integers(1)
    stacked = graph.node("Concat", *(graph.node("Unsqueeze", a, place) for a in answers), axis=1)
    chosen = np.zeros((len(operator.strategies), len(answers), 1), dtype=np.float32)
    for number, networks in enumerate(operator.strategies):
        np.add.at(chosen[number], list(networks), 1)  # one that is named twice counts twice
    weights = graph.node("Gather", graph.constant(chosen), situation)
    total = graph.node("ReduceSum", graph.node("Mul", stacked, weights), place, keepdims=0)
    counts = graph.constant(chosen.sum(1))
    mean = graph.node("Div", total, graph.node("Gather", counts, situation))
    logarithm = graph.node("Log", graph.node("Max", mean, graph.number(1e-12)))
    alone = np.array([[tuple(networks) == (0,)] for networks in operator.strategies])
    kept = graph.node("Gather", graph.constant(alone), situation)
    return value_of(graph.node("Where", kept, first, logarithm), result)


def _situation(graph: Graph, operator: Route, first: str, deciding: str, classes: int) -> str:
    """Return the number of the situation of each sample, int64 [batch]."""
    cold = operator.temperature == 1
    cooled = first if cold else graph.node("Div", first, graph.number(operator.temperature))
    chances = graph.node("Softmax", cooled, axis=1)
    best, _ = graph.nodes_of("TopK", 2, chances, graph.integers(2), axis=1)
    largest, second = graph.nodes_of("Split", 2, best, graph.integers(1, 1), axis=1)
    margin = graph.node("Sub", largest, second)
    sure = graph.node("GreaterOrEqual", margin, graph.number(operator.margin))
    sure = graph.node("Reshape", sure, graph.integers(-1))
    unsure = graph.number(1, "int64")
    if operator.deciding:
        likeliest = graph.node("ArgMax", deciding, axis=1, keepdims=0)
        unsure = graph.node("Add", likeliest, unsure)
    if operator.groups:
        belongs = np.zeros((classes, operator.groups), dtype=np.float32)
        for number, group in enumerate(operator.group_of):
            if group != NO_GROUP:
                belongs[number, group] = 1
        sums = graph.node("MatMul", chances, graph.constant(belongs))
        group_number = graph.node("ArgMax", sums, axis=1, keepdims=0)
        unsure = graph.node("Add", group_number, unsure)
    return graph.node("Where", sure, graph.number(0, "int64"), unsure)
