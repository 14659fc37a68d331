"""`linear`, `conv2d` and `requantize` as ONNX nodes.

Products of floats are Gemm or Conv with the scale inside DequantizeLinear. On integers the sums
come first, exactly, then scale and bias as Mul and Add: the order of the runtime. Where the sums
go to a `requantize` and nowhere else, the three become the QDQ pattern (DequantizeLinear, Gemm or
Conv, QuantizeLinear), which ONNX Runtime and others turn into one integer kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from whit.export.onnx_graph import EXACT_FLOAT, Array, Graph, Value, per_channel, value_of
from whit.export.onnx_weights import (
    as_bytes,
    dequantized_weight,
    fits_byte,
    safe_centre,
    weight_tensor,
)
from whit.runtime.layout import FLOAT, INTEGER, Activation
from whit.runtime.operators import Conv2d, Linear, Requantize

Matrix = Linear | Conv2d

FINE_SUMS = 64  # how many sums make up an output step at least, where the bias is rounded to one


@dataclass(frozen=True)
class Product:
    """The ONNX operator of a matrix operator.

    Args:
        operator: "Gemm" or "Conv".
        shape: shape of the weight.
        attributes: of the operator.
    """

    operator: str
    shape: tuple[int, ...]
    attributes: Mapping[str, Any]

    def of_floats(self, graph: Graph, x: str, weight: str, bias: str | None = None) -> str:
        """Return the float32 product, with the bias added when there is one."""
        inputs = (x, weight) if bias is None else (x, weight, bias)
        return graph.node(self.operator, *inputs, **self.attributes)

    def of_bytes(self, graph: Graph, x: str, values: Array, form: str, limit: int) -> str:
        """Return the int32 product of a uint8 or int8 tensor with int8 values."""
        # ConvInteger of int8 inputs gives wrong sums with uint8 weights, and needs none.
        centre = safe_centre(values, form, limit) if form == "uint8" else 0
        stored = as_bytes(values.reshape(self.shape), centre)
        zeros = graph.number(0, form), graph.number(centre, stored.dtype.name)
        if self.operator == "Gemm":
            return graph.node("MatMulInteger", x, graph.constant(stored.T), *zeros)
        return graph.node("ConvInteger", x, graph.constant(stored), *zeros, **self.attributes)


def write_linear(graph: Graph, operator: Linear, x: Value, result: Activation) -> Value:
    """Write a linear operator."""
    product, x = _linear(graph, operator, x)
    return _shaped(graph, _multiply(graph, product, operator, x, result), result)


def write_conv2d(graph: Graph, operator: Conv2d, x: Value, result: Activation) -> Value:
    """Write a conv2d operator; a padding other than 0 is a Pad node."""
    product, x = _conv2d(graph, operator, x)
    return _multiply(graph, product, operator, x, result)


def write_quantized(
    graph: Graph, operator: Matrix, follower: Requantize, x: Value, result: Activation
) -> Value | None:
    """Write a matrix operator and the requantize behind it as one QDQ pattern.

    Both round half to even, the pattern a float32 product. An exact half stays one there: its
    multiplier and its sum have at most 9 significant bits, since their product is below 2^8 steps.
    So the two differ, by one step, only within float32 rounding of a half, or where the offset,
    rounded to a 64th of a step, falls on the other side of one. Few-bit weights are multiplied by
    a power of two so that sums are as fine as that. Where they cannot be, and where ONNX has no
    such pattern, nothing is written and the result is None.

    Args:
        graph: where the nodes go.
        operator: the matrix operator, its result exact sums.
        follower: the requantize that reads it.
        x: what the matrix operator reads.
        result: what the requantize gives.
    """
    weight = operator.weight
    suits = x.form in ("uint8", "int8") and result.domain in ("uint8", "int8")
    one_a_channel = follower.multipliers.size > 1 or (
        follower.offsets is not None and follower.offsets.size > 1
    )
    if isinstance(operator, Linear) and len(x.shape) > 1 and one_a_channel:
        return None  # a channel is the first axis there, not a row of the weight
    if not suits or not fits_byte(weight.values):
        return None
    if isinstance(operator, Linear):
        product, x = _linear(graph, operator, x)
    else:
        product, x = _conv2d(graph, operator, x)
    rows = _rows_of(follower, weight.values, x.limit)
    if rows is None:
        return None
    centre = safe_centre(rows.values, x.form, x.limit)
    matrix = dequantized_weight(graph, rows.values.reshape(product.shape), rows.scale, centre)
    sums = product.of_floats(graph, graph.dequantized(x), matrix, _dequantized_bias(graph, rows))
    one, zero = graph.number(1), graph.number(0, result.domain)
    quantized = graph.node("QuantizeLinear", sums, one, zero)
    limits = np.iinfo(result.domain)
    if (follower.low, follower.high) != (limits.min, limits.max):
        low, high = (graph.number(n, result.domain) for n in (follower.low, follower.high))
        quantized = graph.node("Clip", quantized, low, high)
    limit = max(abs(follower.low), abs(follower.high))
    return _shaped(graph, value_of(quantized, result, limit), result)


def write_requantize(graph: Graph, operator: Requantize, x: Value, result: Activation) -> Value:
    """Write a requantize in int64, bit for bit as the runtime computes it."""
    rank = len(x.shape)
    number = graph.cast(x.tensor, "int64")
    factors = per_channel(operator.multipliers.astype(np.int64), rank)
    number = graph.node("Mul", number, graph.constant(factors))
    if operator.offsets is not None:
        offsets = per_channel(operator.offsets.astype(np.int64), rank)
        number = graph.node("Add", number, graph.constant(offsets))
    divisor = graph.number(1 << operator.exponent, "int64")
    # ONNX divides towards zero and has no signed shift: take off the remainder first.
    rest = graph.node("Mod", number, divisor)
    whole = graph.node("Div", graph.node("Sub", number, rest), divisor)
    # Up beyond a half, and at a half from an odd number: both are rest + odd > half.
    odd = graph.node("Mod", whole, graph.number(2, "int64"))
    half = graph.number(1 << (operator.exponent - 1), "int64")
    up = graph.node("Greater", graph.node("Add", rest, odd), half)
    number = graph.node("Add", whole, graph.cast(up, "int64"))
    low, high = (graph.number(n, "int64") for n in (operator.low, operator.high))
    number = graph.node("Clip", number, low, high)
    value = value_of("", result, max(abs(operator.low), abs(operator.high)))
    return replace(value, tensor=graph.cast(number, value.form))


def _linear(graph: Graph, operator: Linear, x: Value) -> tuple[Product, Value]:
    shape = (operator.weight.rows, operator.weight.columns)
    if len(x.shape) > 1:
        flat = graph.node("Reshape", x.tensor, graph.integers(-1, shape[1]))
        x = replace(x, tensor=flat)
    return Product("Gemm", shape, {"transB": 1}), x


def _conv2d(graph: Graph, operator: Conv2d, x: Value) -> tuple[Product, Value]:
    pad_h, pad_w = operator.pad
    if operator.pad_value:
        pads = graph.integers(0, 0, pad_h, pad_w, 0, 0, pad_h, pad_w)
        border = graph.number(operator.pad_value, x.form)
        limit = max(x.limit, abs(operator.pad_value))
        x = replace(x, tensor=graph.node("Pad", x.tensor, pads, border), limit=limit)
        pad_h = pad_w = 0
    per_group = operator.weight.columns // (operator.size[0] * operator.size[1])
    attributes = {
        "kernel_shape": list(operator.size),
        "strides": list(operator.stride),
        "pads": [pad_h, pad_w, pad_h, pad_w],
        "dilations": [operator.dilation] * 2,
        "group": x.shape[0] // per_group,
    }
    return Product("Conv", (operator.weight.rows, per_group, *operator.size), attributes), x


def _shaped(graph: Graph, value: Value, result: Activation) -> Value:
    """Undo the flattening of a linear operator on several axes."""
    if len(result.shape) == 1:
        return value
    shape = graph.integers(-1, *result.shape)
    return replace(value, tensor=graph.node("Reshape", value.tensor, shape))


def _multiply(
    graph: Graph, product: Product, operator: Matrix, x: Value, result: Activation
) -> Value:
    weight, bias = operator.weight, operator.bias
    if x.domain == FLOAT or not weight.form.integers:
        matrix = weight_tensor(graph, weight, product.shape)
        added = None if bias is None else graph.constant(bias)
        return value_of(product.of_floats(graph, graph.floats(x), matrix, added), result)
    sums = _exact_sums(graph, product, operator, x, result)
    if result.domain == INTEGER:
        return sums
    rank = len(product.shape) - 1  # Gemm gives [batch, rows], Conv [batch, rows, height, width]
    number = graph.floats(sums)
    if weight.scale.size:
        number = graph.node("Mul", number, graph.constant(per_channel(weight.scale, rank)))
    if bias is not None:
        number = graph.node("Add", number, graph.constant(per_channel(bias, rank)))
    return value_of(number, result)


def _exact_sums(
    graph: Graph, product: Product, operator: Matrix, x: Value, result: Activation
) -> Value:
    """Sum integers exactly: in float32 where it holds every partial sum, else in int32."""
    values = operator.weight.values
    limit = int(_largest_sums(values, x.limit).max())
    exact = Value("", result.shape, INTEGER, limit=limit)
    if limit < EXACT_FLOAT:
        centre, scale = safe_centre(values, x.form, x.limit), np.empty(0, np.float32)
        matrix = dequantized_weight(graph, values.reshape(product.shape), scale, centre)
        sums = product.of_floats(graph, graph.dequantized(x), matrix)
        return replace(exact, tensor=sums)
    total = ""
    for tensor, form, part_limit, x_factor in _byte_parts(graph, x):
        for digits, w_factor in _weight_parts(values):
            part = product.of_bytes(graph, tensor, digits, form, part_limit)
            if x_factor * w_factor > 1:
                part = graph.node("Mul", part, graph.number(x_factor * w_factor, "int32"))
            total = graph.node("Add", total, part) if total else part
    return replace(exact, tensor=total, form="int32")


def _byte_parts(graph: Graph, x: Value) -> list[tuple[str, str, int, int]]:
    """Split integers into bytes: tensor, dtype, largest magnitude and factor of each part."""
    if x.form in ("uint8", "int8"):
        return [(x.tensor, x.form, x.limit, 1)]
    if x.limit < 128:
        return [(graph.cast(x.tensor, "int8"), "int8", x.limit, 1)]
    base = graph.number(256)
    high = graph.node("Floor", graph.node("Div", x.tensor, base))
    low = graph.node("Sub", x.tensor, graph.node("Mul", high, base))
    return [
        (graph.cast(low, "uint8"), "uint8", 255, 1),
        (graph.cast(high, "int8"), "int8", 128, 256),
    ]


def _weight_parts(values: Array) -> list[tuple[Array, int]]:
    """Split integers into int8 digits of base 256, each with its factor.

    Signed digits, since int8 inputs are multiplied by int8 weights only.
    """
    parts: list[tuple[Array, int]] = []
    rest, factor = values.astype(np.int32), 1
    while not parts or rest.any():
        digit = (rest + 128) % 256 - 128
        parts.append((digit.astype(np.int8), factor))
        rest, factor = (rest - digit) // 256, factor * 256
    return parts


def _largest_sums(values: Array, limit: int) -> Array:
    sums: Array = np.abs(values.astype(np.int64)).sum(1) * limit
    return sums


@dataclass(frozen=True)
class _Rows:
    """The constants of a QDQ pattern, for each row of the weight.

    Args:
        values: int8 weights, 0 in rows whose result no input changes; times a power of two where
            the bias needs parts of a sum.
        scale: float32 [1] or [rows], output steps per sum.
        bias: int32 [rows], in sums.
    """

    values: Array
    scale: Array
    bias: Array


def _rows_of(follower: Requantize, values: Array, limit: int) -> _Rows | None:
    """Return the constants that come close enough to a requantize; None where there are none.

    Args:
        follower: the requantize.
        values: the weights [rows, columns].
        limit: largest magnitude of their inputs.
    """
    largest = _largest_sums(values, limit)
    factors = np.broadcast_to(follower.multipliers, largest.shape)
    offsets = np.zeros(1, np.int64) if follower.offsets is None else follower.offsets
    offsets = np.broadcast_to(offsets, largest.shape)
    ends = replace(follower, multipliers=factors, offsets=offsets)
    least, most = (ends.run(end[None])[0] for end in (-largest, largest))
    fixed = least == most
    divisors = np.where(fixed, 1, factors).astype(np.int64)  # a factor of 0 is always fixed
    whole, rest = np.divmod(offsets, divisors)
    uneven = (rest != 0) & ~fixed
    parts = 1
    while (uneven & (divisors * FINE_SUMS > parts << follower.exponent)).any():
        parts *= 2
    kept = np.where(fixed[:, None], 0, values).astype(np.int64) * parts
    wide = np.abs(whole) >= np.iinfo(np.int32).max // parts - largest
    if not fits_byte(kept) or (wide & ~fixed).any():
        return None
    more, rest = np.divmod(rest * parts, divisors)
    bias = np.where(fixed, least, whole * parts + more + (2 * rest >= divisors)).astype(np.int32)
    scale = np.where(fixed, 1, factors * (2.0**-follower.exponent / parts)).astype(np.float32)
    same = follower.multipliers.size == 1 and not fixed.any()
    return _Rows(kept.astype(np.int8), scale[:1] if same else scale, bias)


def _dequantized_bias(graph: Graph, rows: _Rows) -> str | None:
    if not rows.bias.any():
        return None
    many = rows.scale.size > 1
    scales = graph.own_constant(rows.scale if many else rows.scale.reshape(()))
    zero = graph.own_constant(np.zeros(rows.scale.shape if many else (), dtype=np.int32))
    axis = {"axis": 0} if many else {}
    return graph.node("DequantizeLinear", graph.own_constant(rows.bias), scales, zero, **axis)
