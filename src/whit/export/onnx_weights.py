"""Weights as ONNX constants that are about as small as in the .whit file.

Integers become int8 and DequantizeLinear, code books uint8 numbers and Gather, binary16 stays
binary16 and a Cast. Standard ONNX has no bits, no ternary digits and no sparse products that tools
support: those weights are int8 or dense float32 here, zeros included.
"""

from __future__ import annotations

import numpy as np

from whit.export.onnx_graph import FORMS, Array, Graph
from whit.runtime.weights import StoredWeight

BYTE_CENTRE = 128


def weight_tensor(graph: Graph, weight: StoredWeight, shape: tuple[int, ...]) -> str:
    """Return a float32 tensor of the effective weights.

    Args:
        graph: where the nodes go.
        weight: the matrix [rows, columns].
        shape: shape to give it; the first axis is the rows.
    """
    values = weight.values.reshape(shape)
    if weight.form.integers:
        return dequantized_weight(graph, values, weight.scale)
    return _floats(graph, weight, values, None)


def dequantized_weight(graph: Graph, values: Array, scale: Array, centre: int = 0) -> str:
    """Return integers times scale as a float32 tensor.

    Args:
        graph: where the nodes go.
        values: integers, rows first; int8, or int16 where 8 bits are too few.
        scale: float32 [0], [1] or [rows].
        centre: zero point; 128 stores the integers as uint8.
    """
    if not fits_byte(values):
        # DequantizeLinear of 16 bits came with opset 21 only.
        floats = graph.cast(graph.constant(values.astype(np.int16)), "float32")
        if not scale.size:
            return floats
        shaped = scale.reshape((-1,) + (1,) * (values.ndim - 1))
        return graph.node("Mul", floats, graph.constant(shaped))
    stored = graph.own_constant(as_bytes(values, centre))
    scales = scale if scale.size > 1 else np.array(scale[0] if scale.size else 1, dtype="float32")
    zero = np.full(scales.shape, centre, dtype="uint8" if centre else "int8")
    axis = {"axis": 0} if scales.ndim else {}
    numbers = graph.own_constant(scales), graph.own_constant(zero)
    return graph.node("DequantizeLinear", stored, *numbers, **axis)


def fits_byte(values: Array) -> bool:
    """Say whether integers are -128..127."""
    return bool(values.min() >= -128 and values.max() <= 127)


def as_bytes(values: Array, centre: int) -> Array:
    """Return integers as int8, or shifted by the centre as uint8."""
    if centre:
        return (values.astype(np.int16) + centre).astype(np.uint8)
    return values.astype(np.int8)


def safe_centre(values: Array, form: str, limit: int) -> int:
    """Return the zero point under which x86 kernels of ONNX Runtime cannot saturate.

    Without VNNI instructions they add two products of uint8 inputs and int8 weights in 16 bits,
    which overflows silently; uint8 times uint8 does not. int8 inputs of DequantizeLinear become
    uint8 there, up to 255, before that happens.

    Args:
        values: the integer weights.
        form: dtype of the inputs.
        limit: largest magnitude of the inputs.
    """
    if form not in FORMS:
        return 0
    largest = limit if form == "uint8" else np.iinfo(np.uint8).max
    worst = 2 * largest * int(np.abs(values.astype(np.int32)).max())
    return BYTE_CENTRE if worst > np.iinfo(np.int16).max else 0


def gathered_rows(graph: Graph, weight: StoredWeight, numbers: str, axes: int) -> str:
    """Return the float32 rows of the given numbers, without unpacking the others.

    Args:
        graph: where the nodes go.
        weight: the matrix [rows, columns].
        numbers: int32 tensor of row numbers.
        axes: its axes, the batch included.
    """
    if not weight.form.integers:
        return _floats(graph, weight, weight.values, numbers)
    dtype = np.int8 if fits_byte(weight.values) else np.int16
    table = graph.constant(weight.values.astype(dtype))
    rows = graph.cast(graph.node("Gather", table, numbers), "float32")
    if not weight.scale.size:
        return rows
    if weight.scale.size == 1:
        return graph.node("Mul", rows, graph.number(float(weight.scale[0])))
    scales = graph.constant(weight.scale.reshape(-1, 1))
    return graph.node("Mul", rows, graph.node("Gather", scales, numbers))


def _floats(graph: Graph, weight: StoredWeight, values: Array, rows: str | None) -> str:
    """Return float weights in their smallest standard form, whole or only some rows."""

    def picked(table: Array) -> str:
        stored = graph.constant(table)
        return stored if rows is None else graph.node("Gather", stored, rows)

    if "codebook" in weight.form.name:
        entries, index = np.unique(values, return_inverse=True)
        dtype = np.uint8 if entries.size <= 1 << 8 else np.uint16
        numbers = graph.cast(picked(index.reshape(values.shape).astype(dtype)), "int32")
        return graph.node("Gather", graph.constant(entries), numbers)
    if "float16" in weight.form.name:
        return graph.cast(picked(values.astype(np.float16)), "float32")
    return picked(values.astype(np.float32))
