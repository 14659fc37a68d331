"""Operators that move, pool, reduce or join numbers, as ONNX nodes."""

from __future__ import annotations

from dataclasses import replace

from whit.export.onnx_graph import Graph, Value, value_of
from whit.runtime.layout import FLOAT, Activation
from whit.runtime.operators import (
    Add,
    AvgPool2d,
    Concat,
    Flatten,
    MaxPool2d,
    Multiply,
    Pad2d,
    Reduce,
    Reshape,
    Transpose,
)


def write_reshape(graph: Graph, operator: Flatten | Reshape, x: Value, result: Activation) -> Value:
    """Write a flatten or reshape."""
    return x.moved(graph.reshape(x.tensor, result.shape), result)


def write_transpose(graph: Graph, operator: Transpose, x: Value, result: Activation) -> Value:
    """Write a transpose behind the batch axis."""
    order = [0, *(axis + 1 for axis in operator.order)]
    return x.moved(graph.node("Transpose", x.tensor, perm=order), result)


def write_pad2d(graph: Graph, operator: Pad2d, x: Value, result: Activation) -> Value:
    """Write a border of one value."""
    top, left, below, right = operator.pads
    pads = graph.integers(0, 0, top, left, 0, 0, below, right)
    same = result.domain == x.domain != FLOAT
    tensor, form = (x.tensor, x.form) if same else (graph.floats(x), "float32")
    padded = graph.node("Pad", tensor, pads, graph.number(operator.value, form))
    if not same:
        return value_of(padded, result)
    return replace(x.moved(padded, result), limit=max(x.limit, int(abs(operator.value))))


def write_max_pool2d(graph: Graph, operator: MaxPool2d, x: Value, result: Activation) -> Value:
    """Write a maximum over windows; ONNX has none of int32, so those pass through float64."""
    pads = [*operator.pad, *operator.pad]
    tensor = graph.cast(x.tensor, "float64") if x.form == "int32" else x.tensor
    pooled = graph.node(
        "MaxPool",
        tensor,
        kernel_shape=list(operator.size),
        strides=list(operator.stride),
        pads=pads,
    )
    return x.moved(graph.cast(pooled, "int32") if x.form == "int32" else pooled, result)


def write_avg_pool2d(graph: Graph, operator: AvgPool2d, x: Value, result: Activation) -> Value:
    """Write a mean over windows."""
    pooled = graph.node(
        "AveragePool",
        graph.floats(x),
        kernel_shape=list(operator.size),
        strides=list(operator.stride),
        pads=[*operator.pad, *operator.pad],
        count_include_pad=0 if operator.inside_only else 1,
    )
    return value_of(pooled, result)


def write_reduce(graph: Graph, operator: Reduce, x: Value, result: Activation) -> Value:
    """Write a mean, maximum or sum over axes."""
    axes = [axis + 1 for axis in operator.axes]
    keep = int(operator.keep)
    if operator.mode == "max":
        largest = graph.node("ReduceMax", x.tensor, axes=axes, keepdims=keep)
        return x.moved(largest, result)
    if operator.mode == "mean":
        mean = graph.node("ReduceMean", graph.floats(x), axes=axes, keepdims=keep)
        return value_of(mean, result)
    total = graph.node("ReduceSum", graph.floats(x), graph.integers(*axes), keepdims=keep)
    return value_of(total, result)


def write_add(graph: Graph, operator: Add, x: Value, other: Value, result: Activation) -> Value:
    """Write a sum of two values."""
    return value_of(graph.node("Add", graph.floats(x), graph.floats(other)), result)


def write_multiply(
    graph: Graph, operator: Multiply, x: Value, other: Value, result: Activation
) -> Value:
    """Write a product of two values."""
    return value_of(graph.node("Mul", graph.floats(x), graph.floats(other)), result)


def write_concat(
    graph: Graph, operator: Concat, x: Value, other: Value, result: Activation
) -> Value:
    """Write one value after the other; both get one dtype."""
    form = x.form
    if result.domain == FLOAT:
        form = "float32"
    elif "int32" in (x.form, other.form):
        form = "int32"  # exact sums: float32 as long as they stay below 2^24
    parts = [v.tensor if v.form == form else graph.cast(v.tensor, form) for v in (x, other)]
    joined = graph.node("Concat", *parts, axis=operator.axis + 1)
    if result.domain == FLOAT:
        return value_of(joined, result)
    limit = max(x.limit, other.limit)
    return replace(x, tensor=joined, shape=result.shape, form=form, limit=limit)
