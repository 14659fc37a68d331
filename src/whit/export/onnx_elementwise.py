"""Operators that treat every number alone, and normalisations, as ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from whit.export.onnx_graph import Array, Graph, Value, per_channel, value_of
from whit.runtime.layout import CHANNEL, FEATURE, Activation
from whit.runtime.operators import (
    Affine,
    Clamp,
    Curve,
    GroupNorm,
    LayerNorm,
    LeakyRelu,
    Normalize,
    Relu,
    Softmax,
)


def write_affine(graph: Graph, operator: Affine, x: Value, result: Activation) -> Value:
    """Write an affine: Mul, then Add."""
    number = graph.floats(x)
    if operator.scale is not None:
        scale = _spread(operator.scale, operator.scale_granularity, x.shape)
        number = graph.node("Mul", number, graph.constant(scale))
    if operator.shift is not None:
        shift = _spread(operator.shift, operator.shift_granularity, x.shape)
        number = graph.node("Add", number, graph.constant(shift))
    return value_of(number, result)


def write_normalize(graph: Graph, operator: Normalize, x: Value, result: Activation) -> Value:
    """Write a normalize: Sub, then Div."""
    number = graph.floats(x)
    if operator.shift is not None:
        shift = _spread(operator.shift, operator.shift_granularity, x.shape)
        number = graph.node("Sub", number, graph.constant(shift))
    if operator.scale is not None:
        scale = _spread(operator.scale, operator.scale_granularity, x.shape)
        number = graph.node("Div", number, graph.constant(scale))
    return value_of(number, result)


def write_relu(graph: Graph, operator: Relu, x: Value, result: Activation) -> Value:
    """Write a relu; bytes are never below 0."""
    if x.form == "uint8":
        return x
    if result.domain == x.domain:
        return replace(x, tensor=graph.node("Relu", x.tensor))
    return value_of(graph.node("Relu", graph.floats(x)), result)


def write_leaky_relu(graph: Graph, operator: LeakyRelu, x: Value, result: Activation) -> Value:
    """Write a leaky relu, PRelu in ONNX."""
    slopes = graph.constant(per_channel(operator.slopes, len(x.shape)))
    return value_of(graph.node("PRelu", graph.floats(x), slopes), result)


def write_clamp(graph: Graph, operator: Clamp, x: Value, result: Activation) -> Value:
    """Write a clamp; Max and Min keep NaN, which Clip need not."""
    number = graph.node("Max", graph.floats(x), graph.number(operator.low))
    return value_of(graph.node("Min", number, graph.number(operator.high)), result)


def write_curve(graph: Graph, operator: Curve, x: Value, result: Activation) -> Value:
    """Write a smooth function."""
    number = graph.floats(x)
    if operator.function == "elu":
        return value_of(graph.node("Elu", number, alpha=float(operator.alpha)), result)
    return value_of(CURVES[operator.function](graph, number), result)


def write_softmax(graph: Graph, operator: Softmax, x: Value, result: Activation) -> Value:
    """Write a softmax or its logarithm."""
    name = "LogSoftmax" if operator.log else "Softmax"
    return value_of(graph.node(name, graph.floats(x), axis=operator.axis + 1), result)


def write_layer_norm(graph: Graph, operator: LayerNorm, x: Value, result: Activation) -> Value:
    """Write a layer norm; ONNX asks for weights, so missing ones are 1."""
    shape = x.shape[-operator.axes :]
    weight = operator.weight
    scale = np.ones(shape, dtype=np.float32) if weight is None else weight.reshape(shape)
    inputs = [graph.floats(x), graph.constant(scale)]
    if operator.shift is not None:
        inputs.append(graph.constant(operator.shift.reshape(shape)))
    epsilon = float(operator.epsilon)
    normal = graph.node("LayerNormalization", *inputs, axis=-operator.axes, epsilon=epsilon)
    return value_of(normal, result)


def write_group_norm(graph: Graph, operator: GroupNorm, x: Value, result: Activation) -> Value:
    """Write a group norm: each group as one channel of InstanceNormalization."""
    groups = operator.groups
    grouped = graph.reshape(graph.floats(x), (groups, math.prod(x.shape) // groups))
    ones = graph.constant(np.ones(groups, dtype=np.float32))
    zeros = graph.constant(np.zeros(groups, dtype=np.float32))
    epsilon = float(operator.epsilon)
    normal = graph.node("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    number = graph.reshape(normal, x.shape)
    if operator.weight is not None:
        weight = per_channel(operator.weight, len(x.shape))
        number = graph.node("Mul", number, graph.constant(weight))
    if operator.shift is not None:
        shift = per_channel(operator.shift, len(x.shape))
        number = graph.node("Add", number, graph.constant(shift))
    return value_of(number, result)


def _spread(constants: Array, granularity: int, shape: tuple[int, ...]) -> Array:
    if granularity == FEATURE:
        return constants.reshape(shape)
    return per_channel(constants, len(shape)) if granularity == CHANNEL else constants


def _silu(graph: Graph, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _gelu(graph: Graph, x: str) -> str:
    inner = graph.node("Erf", graph.node("Mul", x, graph.number(math.sqrt(0.5))))
    return _half_times(graph, x, inner)


def _gelu_tanh(graph: Graph, x: str) -> str:
    cube = graph.node("Mul", graph.node("Mul", x, x), x)
    inner = graph.node("Add", x, graph.node("Mul", cube, graph.number(0.044715)))
    inner = graph.node("Mul", inner, graph.number(math.sqrt(2 / math.pi)))
    return _half_times(graph, x, graph.node("Tanh", inner))


def _half_times(graph: Graph, x: str, inner: str) -> str:
    """Return x / 2 * (1 + inner)."""
    half = graph.node("Mul", x, graph.number(0.5))
    return graph.node("Mul", half, graph.node("Add", inner, graph.number(1)))


def _hardsigmoid(graph: Graph, x: str) -> str:
    return graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


CURVES: dict[str, Callable[[Graph, str], str]] = {
    "sigmoid": lambda graph, x: graph.node("Sigmoid", x),
    "tanh": lambda graph, x: graph.node("Tanh", x),
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda graph, x: graph.node("HardSwish", x),
    "softplus": lambda graph, x: graph.node("Softplus", x),
    "abs": lambda graph, x: graph.node("Abs", x),
    "square": lambda graph, x: graph.node("Mul", x, x),
}
