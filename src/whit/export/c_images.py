"""C code of pooling and padding."""

from whit.export.c_memory import short_name
from whit.export.c_step import StepWriter
from whit.export.c_text import float_literal, int_list
from whit.runtime.layout import FLOAT, SIGN


def write_max_pool2d(step: StepWriter) -> None:
    """Write the maximum of each window, in the domain of the source."""
    if step.source.activation.domain == SIGN:
        kernel = step.unit.kernel("max_pool_signs")
    else:
        c_type = step.source.c_type
        or_nan = " || value != value" if c_type == "float" else ""
        kernel = step.unit.kernel(
            "max_pool", f"max_pool_{short_name(c_type)}", x=c_type, or_nan=or_nan
        )
    step.call(kernel, step.source.token, step.y, _pool_shape(step))


def write_avg_pool2d(step: StepWriter) -> None:
    """Write the mean of each window."""
    x = step.floats(step.source)
    kernel = step.unit.kernel("avg_pool")
    step.call(kernel, x, step.y, _pool_shape(step), int(step.operator.inside_only))


def write_pad2d(step: StepWriter) -> None:
    """Write a border around each image."""
    shape, pads = int_list(step.shape), int_list(step.operator.pads)
    value = step.operator.value
    domain = step.target.activation.domain
    if domain == SIGN:
        kernel = step.unit.kernel("pad2d_signs")
        step.call(kernel, step.source.token, step.y, shape, pads, int(value < 0))
        return
    x = step.floats(step.source) if domain == FLOAT else step.source.token
    c_type = step.target.c_type
    number = float_literal(value) if domain == FLOAT else int(value)
    kernel = step.unit.kernel("pad2d", f"pad2d_{short_name(c_type)}", x=c_type)
    step.call(kernel, x, step.y, shape, pads, number)


def _pool_shape(step: StepWriter) -> str:
    (channels, height, width), operator = step.shape, step.operator
    out_h, out_w = step.target.activation.shape[1:]
    fields = {"channels": channels, "height": height, "width": width}
    fields |= {"size_h": operator.size[0], "size_w": operator.size[1]}
    fields |= {"stride_h": operator.stride[0], "stride_w": operator.stride[1]}
    fields |= {"pad_h": operator.pad[0], "pad_w": operator.pad[1]}
    fields |= {"out_h": out_h, "out_w": out_w}
    return step.unit.structure("pool_shape", f"pool_{step.index}", fields)
