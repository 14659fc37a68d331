"""C code of the operators between floats, integers and signs."""

import numpy as np

from whit.export.c_memory import short_name
from whit.export.c_step import StepWriter, channels_of
from whit.export.c_text import C_TYPES, float_literal, int_literal


def write_threshold(step: StepWriter) -> None:
    """Write sign bits by comparison with one threshold a channel."""
    c_type, x = step.numbers(step.source)
    thresholds, arrays = _thresholds(step)
    types = {"x": c_type, "t": C_TYPES[thresholds.dtype]}
    name = "_".join(["threshold", *map(short_name, types.values())])
    split = channels_of(step.source.activation, thresholds.size)
    step.call(step.unit.kernel("threshold", name, **types), x, step.y, *arrays, *split)


def write_levels(step: StepWriter) -> None:
    """Write low + step * thresholds reached."""
    c_type, x = step.numbers(step.source)
    operator = step.operator
    thresholds, arrays = _thresholds(step)
    types = {"x": c_type, "t": C_TYPES[thresholds.dtype], "y": step.target.c_type}
    name = "_".join(["levels", *map(short_name, types.values())])
    channels, size = thresholds.shape
    split = channels_of(step.source.activation, channels)
    kernel = step.unit.kernel("levels", name, **types)
    step.call(kernel, x, step.y, *arrays, *split, size, operator.low, operator.step)


def write_quantize(step: StepWriter) -> None:
    """Write rounded and clamped integers."""
    operator, c_type = step.operator, step.target.c_type
    kernel = step.unit.kernel("quantize", f"quantize_{short_name(c_type)}", y=c_type)
    scaling = float_literal(operator.shift), float_literal(operator.factor)
    limits = operator.low, operator.high
    x = step.floats(step.source)
    step.call(kernel, x, step.y, step.elements, *scaling, *limits)


def write_requantize(step: StepWriter) -> None:
    """Write integers scaled by a multiplication and a shift."""
    operator = step.operator
    c_type, x = step.numbers(step.source)
    types = {"x": c_type, "y": step.target.c_type}
    kernel = step.unit.kernel(
        "requantize", "_".join(["requantize", *map(short_name, types.values())]), **types
    )
    multipliers = operator.multipliers.astype(np.int32)
    offsets = np.zeros(1, dtype=np.int64) if operator.offsets is None else operator.offsets
    split = channels_of(step.source.activation, max(multipliers.size, offsets.size))
    arrays = (
        step.unit.constant(f"multipliers_{step.index}", multipliers),
        step.unit.constant(f"offsets_{step.index}", offsets.astype(np.int64)),
    )
    steps = int(multipliers.size > 1), int(offsets.size > 1)
    limits = int_literal(operator.low), int_literal(operator.high)
    order = (split[0], *steps, split[1], operator.exponent, *limits)
    step.call(kernel, x, step.y, *arrays, *order)


def write_lookup(step: StepWriter) -> None:
    """Write table entries."""
    table = step.operator.table
    array = step.unit.floats(f"table_{step.index}", table)
    kernel = step.unit.kernel("lookup")
    step.call(kernel, step.source.token, step.y, array, table.size, step.elements)


def _thresholds(step: StepWriter) -> tuple[np.ndarray, tuple[str, str]]:
    operator = step.operator
    thresholds = operator.thresholds.astype(operator.thresholds.dtype.newbyteorder("="))
    array = step.unit.constant(f"thresholds_{step.index}", thresholds)
    if operator.flipped is None:
        return thresholds, (array, "0")
    packed = np.packbits(operator.flipped, bitorder="little")
    return thresholds, (array, step.unit.constant(f"flipped_{step.index}", packed))
