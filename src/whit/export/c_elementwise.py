"""C code of the operators that treat every number, or every channel, alone."""

from whit.export.c_memory import short_name
from whit.export.c_step import StepWriter, channels_of, four_axes, strides_of
from whit.export.c_text import float_literal, int_list
from whit.runtime.layout import FLOAT, SIGN
from whit.runtime.operators.contract import Floats

_CURVES = {
    "sigmoid": "sigmoid(x)",
    "tanh": "tanhf(x)",
    "silu": "x * sigmoid(x)",
    "gelu": "0.5f * x * erfcf(x * -0.70710678f)",
    "gelu_tanh": "0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)))",
    "elu": "x < 0 ? alpha * expm1f(x) : x",
    "hardsigmoid": "hardsigmoid(x)",
    "hardswish": "x * hardsigmoid(x)",
    "softplus": "(x > 0 ? x : 0) + log1pf(expf(x > 0 ? -x : x))",
    "abs": "x > 0 ? x : 0 - x",
    "square": "x * x",
}


def write_affine(step: StepWriter) -> None:
    """Write x * scale + shift."""
    operator = step.operator
    constants = (("*", operator.scale, "scale"), ("+", operator.shift, "shift"))
    _write_constants(step, constants)


def write_normalize(step: StepWriter) -> None:
    """Write (x - shift) / scale."""
    operator = step.operator
    constants = (("-", operator.shift, "shift"), ("/", operator.scale, "scale"))
    _write_constants(step, constants)


def write_relu(step: StepWriter) -> None:
    """Write max(x, 0), in the domain of x."""
    whole = step.source.activation.domain not in (FLOAT, SIGN)
    x = step.source.token if whole else step.floats_for_result()
    c_type = step.source.c_type if whole else "float"
    if c_type == "uint8_t":
        copy_value(step, x, c_type, step.y)
        return
    kernel = step.unit.kernel("relu", f"relu_{short_name(c_type)}", x=c_type)
    step.call(kernel, x, step.y, step.elements)


def write_sign(step: StepWriter) -> None:
    """Write the sign bits of x."""
    if step.source.activation.domain == SIGN:
        copy_value(step, step.source.token, "uint32_t", step.y)
        return
    c_type = step.source.c_type
    if c_type == "uint8_t":  # never below 0, and compilers warn of the comparison
        c_type, x = "float", step.floats(step.source)
    else:
        x = step.source.token
    kernel = step.unit.kernel("sign", f"sign_{short_name(c_type)}", x=c_type)
    step.call(kernel, x, step.y, step.elements)


def write_clamp(step: StepWriter) -> None:
    """Write min(max(x, low), high)."""
    limits = float_literal(step.operator.low), float_literal(step.operator.high)
    x = step.floats_for_result()
    step.call(step.unit.kernel("clamp"), x, step.y, step.elements, *limits)


def write_leaky_relu(step: StepWriter) -> None:
    """Write x or x * slope."""
    x = step.floats_for_result()
    slopes = step.operator.slopes
    array = step.unit.floats(f"slopes_{step.index}", slopes)
    split = channels_of(step.source.activation, slopes.size)
    step.call(step.unit.kernel("leaky_relu"), x, step.y, array, *split)


def write_curve(step: StepWriter) -> None:
    """Write one of the curves."""
    function = step.operator.function
    formula = _CURVES[function]
    for helper in ("sigmoid", "hardsigmoid"):
        if f" {helper}(" in f" {formula}":
            step.unit.kernel(helper)
    takes_alpha = "alpha" in formula
    alpha = ", float alpha" if takes_alpha else ""
    name = f"curve_{function}"
    kernel = step.unit.kernel("curve", name, function=function, formula=formula, alpha=alpha)
    extra = [float_literal(step.operator.alpha)] if takes_alpha else []
    step.call(kernel, step.floats_for_result(), step.y, step.elements, *extra)


def write_add(step: StepWriter) -> None:
    """Write source + other, or source * other."""
    operator = {"add": "+", "multiply": "*"}[step.operator.kind]
    kernel = step.unit.kernel("broadcast", f"{step.operator.kind}_values", operator=operator)
    repeated = step.other.activation.shape
    pairs = zip(repeated, strides_of(repeated), strict=True)
    stride = tuple(0 if size == 1 else distance for size, distance in pairs)
    z = step.floats(step.other)
    x = step.floats_for_result()
    shape = int_list(four_axes(step.shape))
    step.call(kernel, x, z, step.y, shape, int_list(four_axes(stride, 0)))


def copy_value(step: StepWriter, x: str, c_type: str, y: str) -> None:
    """Copy the source; nothing where both lie in the same place."""
    if x == y:
        return
    count = step.elements
    if step.source.activation.domain == SIGN:
        count = (count + 31) // 32
    step.call(step.unit.kernel("copy", f"copy_{short_name(c_type)}", x=c_type), x, y, count)


def _write_constants(step: StepWriter, parts: tuple[tuple[str, Floats | None, str], ...]) -> None:
    x = step.floats_for_result()
    for sign, values, name in parts:
        if values is not None:
            array = step.unit.floats(f"{name}_{step.index}", values)
            split = channels_of(step.source.activation, values.size)
            step.constants(x, sign, array, 1, *split)
            x = step.y
    if x != step.y:
        copy_value(step, x, "float", step.y)
