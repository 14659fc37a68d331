"""Operators that go from numbers to signs or small integers and back, as ONNX nodes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from whit.export.onnx_graph import FORMS, Array, Graph, Value, per_channel, value_of
from whit.export.onnx_weights import gathered_rows
from whit.runtime.layout import Activation
from whit.runtime.operators import Embedding, Levels, Lookup, Quantize, Sign, Threshold


def write_sign(graph: Graph, operator: Sign, x: Value, result: Activation) -> Value:
    """Write a sign: +1 where x >= 0, else (so at NaN) -1."""
    return value_of(_signs(graph, _at_least(graph, graph.floats(x), graph.number(0))), result)


def write_threshold(graph: Graph, operator: Threshold, x: Value, result: Activation) -> Value:
    """Write thresholds; a flipped channel compares -x >= -T, which is x <= T."""
    number, form = graph.comparable(x)
    thresholds = per_channel(operator.thresholds.astype(form), len(x.shape))
    if operator.flipped is not None:
        direction = per_channel(np.where(operator.flipped, -1, 1).astype(form), len(x.shape))
        number = graph.node("Mul", number, graph.constant(direction))
        thresholds = thresholds * direction
    reached = _at_least(graph, number, graph.constant(thresholds))
    return value_of(_signs(graph, reached), result)


def write_quantize(graph: Graph, operator: Quantize, x: Value, result: Activation) -> Value:
    """Write a quantize.

    QuantizeLinear divides by a scale where the file multiplies by a factor: the same for powers of
    two. Other factors become the runtime's own operators, so that the integers are the same.
    """
    limit = max(abs(operator.low), abs(operator.high))
    mantissa, _ = math.frexp(operator.factor)
    number, form = graph.floats(x), FORMS.get(result.domain, "float32")
    if mantissa == 0.5 and operator.shift == 0 and form != "float32":
        quantized = graph.node(
            "QuantizeLinear", number, graph.number(1 / operator.factor), graph.number(0, form)
        )
        limits = np.iinfo(form)
        if (operator.low, operator.high) != (limits.min, limits.max):
            low, high = (graph.number(n, form) for n in (operator.low, operator.high))
            quantized = graph.node("Clip", quantized, low, high)
        return value_of(quantized, result, limit)
    if operator.shift:
        number = graph.node("Sub", number, graph.number(operator.shift))
    number = graph.node("Round", graph.node("Mul", number, graph.number(operator.factor)))
    low = graph.number(operator.low)
    # Where instead of Max: NaN becomes low.
    number = graph.node("Where", _at_least(graph, number, low), number, low)
    number = graph.node("Min", number, graph.number(operator.high))
    tensor = number if form == "float32" else graph.cast(number, form)
    return value_of(tensor, result, limit)


def write_levels(graph: Graph, operator: Levels, x: Value, result: Activation) -> Value:
    """Write levels as a binary search through the sorted thresholds of each channel.

    One step halves the thresholds that are left: 8 steps do for 255 of them, where comparing with
    each would make a tensor 255 times as large as the input.
    """
    number, form = graph.comparable(x)
    thresholds = operator.thresholds.astype(form)
    if operator.flipped is not None:
        direction = np.where(operator.flipped, -1, 1).astype(form)
        flips = per_channel(direction, len(x.shape))
        number = graph.node("Mul", number, graph.constant(flips))
        thresholds = thresholds * direction[:, None]
    place = _places_below(graph, number, np.sort(thresholds, axis=1), len(x.shape))
    count = thresholds.shape[1]
    levels = (operator.low + operator.step * np.arange(count + 1)).astype(np.float32)
    limit = int(np.abs(levels).max())
    value = value_of("", result, limit)
    table = graph.constant(levels.astype(value.form))
    return replace(value, tensor=graph.node("Gather", table, place))


def write_lookup(graph: Graph, operator: Lookup, x: Value, result: Activation) -> Value:
    """Write a table of floats; numbers behind its end take the last."""
    number = graph.cast(x.tensor, "int32")
    if operator.table.size <= np.iinfo(np.uint8).max:
        number = graph.node("Min", number, graph.number(operator.table.size - 1, "int32"))
    return value_of(graph.node("Gather", graph.constant(operator.table), number), result)


def write_embedding(graph: Graph, operator: Embedding, x: Value, result: Activation) -> Value:
    """Write an embedding: Gather on the stored rows, which are unpacked afterwards."""
    number = x.tensor if x.form == "int32" else graph.cast(x.tensor, "int32")
    return value_of(gathered_rows(graph, operator.weight, number, len(x.shape) + 1), result)


def _at_least(graph: Graph, number: str, threshold: str) -> str:
    return graph.node("GreaterOrEqual", number, threshold)


def _signs(graph: Graph, positive: str) -> str:
    return graph.node("Where", positive, graph.number(1), graph.number(-1))


def _places_below(graph: Graph, number: str, thresholds: Array, rank: int) -> str:
    """Return how many of a channel's ascending thresholds each number reaches, as int32."""
    channels, count = thresholds.shape
    span = 1 << int(count).bit_length()
    filled = np.full((channels, span), np.inf, dtype=thresholds.dtype)
    filled[:, :count] = thresholds
    table = graph.constant(filled.reshape(-1))
    starts = per_channel(span * np.arange(channels, dtype=np.int32), rank)
    place, width = "", span // 2
    while width:
        probe = per_channel(starts.reshape(-1) + width - 1, rank).astype(np.int32)
        index = graph.constant(probe)
        if place:
            index = graph.node("Add", place, index)
        reached = _at_least(graph, number, graph.node("Gather", table, index))
        step = graph.node("Mul", graph.cast(reached, "int32"), graph.number(width, "int32"))
        place = graph.node("Add", place, step) if place else step
        width //= 2
    return place
