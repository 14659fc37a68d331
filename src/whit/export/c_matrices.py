"""C code of the operators with a weight matrix."""

from math import prod

import numpy as np

from whit.export.c_memory import short_name, words_of_bits
from whit.export.c_step import StepWriter
from whit.export.c_weights import Rows, bit_words, weight_rows
from whit.runtime.layout import FLOAT, INTEGER_RANGES, SIGN
from whit.runtime.weights import StoredWeight


def write_linear(step: StepWriter) -> None:
    """Write x W^T * scale + bias at every position of the leading axes."""
    weight: StoredWeight = step.operator.weight
    positions = prod(step.shape[:-1])
    if _both_signs(step, weight):
        y = step.target.c_type
        kernel = step.unit.kernel("linear_bits", f"linear_bits_{short_name(y)}", y=y)
        words = step.unit.constant(f"w{step.index}_words", bit_words(weight))
        moved = positions > 1 and weight.columns % 32
        copy = step.temporary("uint32_t", words_of_bits(weight.columns)) if moved else "0"
        sizes = positions, weight.columns, weight.rows
        step.call(kernel, step.source.token, words, step.y, *sizes, copy)
    else:
        x_type, x = step.numbers(step.source)
        rows = weight_rows(step, weight)
        kernel = _row_kernel(step, "linear_row", weight, x_type, rows)
        sizes = positions, weight.columns, weight.rows
        _row_loop(step, rows, weight, (kernel, x, rows.address, f"{step.y} + row", *sizes))
    _finish(step, weight, (positions, weight.rows, 1))


def write_conv2d(step: StepWriter) -> None:
    """Write a cross-correlation, one output channel after the other or on bits."""
    weight: StoredWeight = step.operator.weight
    operator = step.operator
    channels, height, width = step.shape
    per_group = weight.columns // prod(operator.size)
    groups = channels // per_group
    positions = prod(step.target.activation.shape[1:])
    if _both_signs(step, weight):
        _write_conv_bits(step, weight, groups)
    else:
        x_type, x = step.numbers(step.source)
        rows = weight_rows(step, weight)
        kernel = _row_kernel(step, "conv_row", weight, x_type, rows)
        if groups > 1:
            x += f" + row / {weight.rows // groups} * {per_group * height * width}"
        y = f"{step.y} + row * {positions}"
        _row_loop(step, rows, weight, (kernel, x, rows.address, y, _conv_shape(step, per_group)))
    _finish(step, weight, (1, weight.rows, positions))


def write_embedding(step: StepWriter) -> None:
    """Write the row of each index; an index out of range ends the prediction with -1."""
    weight: StoredWeight = step.operator.weight
    c_type, x = step.numbers(step.source)
    rows = weight_rows(step, weight)
    kernel = _convert(step, rows.c_type)
    step.lines.append(f"for (int32_t k = 0; k < {step.elements}; k++) {{")
    step.lines.append(f"const int32_t wanted = ((const {c_type} *){x})[k];")
    step.lines.append(f"if (wanted < 0 || wanted >= {weight.rows}) {{")
    step.lines += ["return -1;", "}"]
    if rows.ordered:  # sparse rows are found by reading all rows before them
        step.lines.append(f"for ({rows.loop_variables}; row <= wanted; row++) {{")
        step.lines += [rows.decode, "}"]
    else:
        decode = rows.decode.replace(", row,", ", wanted,")
        step.lines += [decode] if decode else []
    address = rows.address.replace("row *", "wanted *")
    step.call(kernel, address, f"{step.y} + k * {weight.columns}", weight.columns)
    if weight.scale.size > 1:
        scale = step.unit.floats(f"scale_{step.index}", weight.scale)
        target = f"{step.y} + k * {weight.columns}"
        multiply = step.unit.kernel("constants", "multiply_constants", operator="*")
        sizes = 1, 1, weight.columns
        step.call(multiply, target, target, f"{scale} + wanted", *sizes)
    step.lines.append("}")
    if weight.scale.size == 1:
        scale = step.unit.floats(f"scale_{step.index}", weight.scale)
        step.constants(step.y, "*", scale, 1, 1, step.target.activation.elements)


def _both_signs(step: StepWriter, weight: StoredWeight) -> bool:
    return step.source.activation.domain == SIGN and weight.form.name == "bits"


def _write_conv_bits(step: StepWriter, weight: StoredWeight, groups: int) -> None:
    operator, y = step.operator, step.target.c_type
    width = words_of_bits(weight.columns)
    words = step.unit.constant(f"w{step.index}_words", bit_words(weight))
    patch = step.temporary("uint32_t", width)
    masked = operator.pad_value == 0 and operator.pad != (0, 0)
    name = f"conv_bits_{'inside_' if masked else ''}{short_name(y)}"
    if masked:
        product = "dot_bits_inside(patch, row, inside, columns)"
        inside = step.temporary("uint32_t", width)
    else:
        product, inside = "dot_bits(patch, row, columns)", "0"
    step.unit.kernel("dot_bits_inside" if masked else "dot_bits")
    kernel = step.unit.kernel("conv_bits", name, y=y, product=product)
    shape = _conv_shape(step, weight.columns // prod(operator.size))
    step.call(kernel, step.source.token, words, step.y, shape, weight.rows, groups, patch, inside)


def _conv_shape(step: StepWriter, per_group: int) -> str:
    operator = step.operator
    out_h, out_w = step.target.activation.shape[1:]
    fields = {"channels": per_group, "height": step.shape[1], "width": step.shape[2]}
    fields |= {"size_h": operator.size[0], "size_w": operator.size[1]}
    fields |= {"stride_h": operator.stride[0], "stride_w": operator.stride[1]}
    fields |= {"pad_h": operator.pad[0], "pad_w": operator.pad[1]}
    fields |= {"pad_value": operator.pad_value, "dilation": operator.dilation}
    fields |= {"out_h": out_h, "out_w": out_w}
    return step.unit.structure("conv_shape", f"conv_{step.index}", fields)


def _row_kernel(
    step: StepWriter, snippet: str, weight: StoredWeight, x_type: str, rows: Rows
) -> str:
    y = step.target.c_type
    exact = y == "int32_t" or (rows.c_type != "float" and _sum_fits(step, weight))
    types = {"x": x_type, "w": rows.c_type, "y": y, "sum": "int32_t" if exact else "float"}
    ending = "_exact" if y == "int32_t" else "_whole" if exact else ""
    name = f"{snippet}_{short_name(x_type)}_{short_name(rows.c_type)}{ending}"
    return step.unit.kernel(snippet, name, **types)


def _sum_fits(step: StepWriter, weight: StoredWeight) -> bool:
    """Say whether every sum of integers stays below 2^31."""
    domain = step.source.activation.domain
    if domain == FLOAT:
        return False
    largest = int(np.abs(weight.values.astype(np.int64)).max())
    bound = max(abs(number) for number in INTEGER_RANGES[domain])
    return weight.columns * largest * bound < 1 << 31


def _row_loop(
    step: StepWriter, rows: Rows, weight: StoredWeight, call: tuple[str | int, ...]
) -> None:
    step.lines.append(f"for ({rows.loop_variables}; row < {weight.rows}; row++) {{")
    if rows.decode:
        step.lines.append(rows.decode)
    step.call(str(call[0]), *call[1:])
    step.lines.append("}")


def _finish(step: StepWriter, weight: StoredWeight, split: tuple[int, int, int]) -> None:
    """Write the scales and the bias of sums that lie in the result."""
    if weight.scale.size:
        scale = step.unit.floats(f"scale_{step.index}", weight.scale)
        one = 1, 1, prod(split)
        step.constants(step.y, "*", scale, *(split if weight.scale.size > 1 else one))
    if step.operator.bias is not None:
        bias = step.unit.floats(f"bias_{step.index}", step.operator.bias)
        step.constants(step.y, "+", bias, *split)


def _convert(step: StepWriter, c_type: str) -> str:
    if c_type == "float":
        return step.unit.kernel("copy", "copy_float", x="float")
    name = f"{short_name(c_type)}_to_float"
    return step.unit.kernel("convert", name, x=c_type, y="float")
