"""C code of the operators that work along axes: moving, joining, reducing, normalising."""

from math import prod

from whit.export.c_memory import short_name
from whit.export.c_step import StepWriter, four_axes, strides_of
from whit.export.c_text import float_literal, int_list
from whit.runtime.layout import FLOAT, SIGN


def write_transpose(step: StepWriter) -> None:
    """Write the axes in another order."""
    strides = strides_of(step.shape)
    stride = four_axes(tuple(strides[axis] for axis in step.operator.order), 0)
    shape = four_axes(step.target.activation.shape)
    c_type = step.source.c_type
    if step.source.activation.domain == SIGN:
        kernel = step.unit.kernel("transpose_signs")
    else:
        kernel = step.unit.kernel("transpose", f"transpose_{short_name(c_type)}", x=c_type)
    step.call(kernel, step.source.token, step.y, int_list(shape), int_list(stride))


def write_concat(step: StepWriter) -> None:
    """Write two values one after the other."""
    axis = step.operator.axis
    blocks = prod(step.shape[axis:]), prod(step.other.activation.shape[axis:])
    outer = prod(step.shape[:axis])
    domain, c_type = step.target.activation.domain, step.target.c_type
    if domain == SIGN:
        kernel = step.unit.kernel("concat_signs")
    else:
        kernel = step.unit.kernel("concat", f"concat_{short_name(c_type)}", x=c_type)
    values = step.source, step.other
    x, z = (step.floats(value) if domain == FLOAT else value.token for value in values)
    step.call(kernel, x, z, step.y, outer, *blocks)


def write_reduce(step: StepWriter) -> None:
    """Write mean, sum or maximum over some axes."""
    mode, axes = step.operator.mode, step.operator.axes
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(step.shape))
    strides = strides_of(kept)
    stride = tuple(0 if axis in axes else strides[axis] for axis in range(len(kept)))
    place = int_list(four_axes(step.shape)), int_list(four_axes(stride, 0))
    results = step.target.activation.elements
    if mode != "max":
        divisor = step.elements // results if mode == "mean" else 1
        x, kernel = step.floats(step.source), step.unit.kernel("reduce_sum")
        step.call(kernel, x, step.y, *place, results, float_literal(divisor))
        return
    if step.source.activation.domain == SIGN:
        kernel = step.unit.kernel("reduce_max_signs")
        step.call(kernel, step.source.token, step.y, *place, results)
        return
    c_type = step.source.c_type
    or_nan = " || value != value" if c_type == "float" else ""
    kernel = step.unit.kernel(
        "reduce_max", f"reduce_max_{short_name(c_type)}", x=c_type, or_nan=or_nan
    )
    step.call(kernel, step.source.token, step.y, *place)


def write_softmax(step: StepWriter) -> None:
    """Write softmax, or its logarithm, along one axis."""
    axis = step.operator.axis
    sizes = prod(step.shape[:axis]), step.shape[axis], prod(step.shape[axis + 1 :])
    kernel = step.unit.kernel("log_softmax" if step.operator.log else "softmax")
    step.call(kernel, step.floats_for_result(), step.y, *sizes)


def write_layer_norm(step: StepWriter) -> None:
    """Write the normalisation over the last axes."""
    columns = step.operator.columns
    rows = step.elements // columns
    _write_norm(step, rows, (rows, columns, 1))


def write_group_norm(step: StepWriter) -> None:
    """Write the normalisation over groups of channels."""
    channels = step.shape[0]
    _write_norm(step, step.operator.groups, (1, channels, step.elements // channels))


def _write_norm(step: StepWriter, rows: int, split: tuple[int, int, int]) -> None:
    operator = step.operator
    size, epsilon = step.elements // rows, float_literal(operator.epsilon)
    kernel = step.unit.kernel("normalize_rows")
    step.call(kernel, step.floats_for_result(), step.y, rows, size, epsilon)
    for sign, values, name in (("*", operator.weight, "weight"), ("+", operator.shift, "shift")):
        if values is not None:
            array = step.unit.floats(f"{name}_{step.index}", values)
            step.constants(step.y, sign, array, *split)
