"""What operators with a weight matrix share: domains of sums, exactness, scales and biases."""

import numpy as np

from whit.runtime.data_section import DataReader
from whit.runtime.layout import (
    ABSENT,
    CHANNEL,
    FLOAT,
    INTEGER,
    INTEGER_RANGES,
    NONE,
    SIGN,
    Activation,
    Record,
)
from whit.runtime.operators.contract import (
    Array,
    Floats,
    domain_of,
    expect,
    read_operand,
    to_float,
    to_integer,
)
from whit.runtime.weights import StoredWeight

MAX_SIGN_TERMS = 1 << 24
# Sums below are exact in float32 in any order, even of the halves that fewer planes bring.
EXACT_FLOAT_SUM = 1 << 23
EXACT_SUM = 1 << 31


def largest_sum(weight: StoredWeight, domain: str) -> int:
    """Return columns times the largest magnitudes of an integer domain and of the coding."""
    largest = max(map(abs, INTEGER_RANGES[domain]))
    return weight.columns * largest * weight.largest


def result_domain(weight: StoredWeight, bias: Floats | None, source: Activation) -> str:
    """Return int32 for whole numbers times a bare integer matrix, else float32.

    Raises:
        ArtifactError: a sum could leave int32, or a sum of signs its 2^24 terms.
    """
    if source.domain == FLOAT or not weight.form.integers:
        return FLOAT
    if source.domain == SIGN:
        expect(weight.columns < MAX_SIGN_TERMS, "a sum of signs has 2^24 terms or more")
    if not weight.exact_integers or bias is not None:
        return FLOAT
    bound = largest_sum(weight, source.domain)
    expect(bound < EXACT_SUM, f"a sum of whole numbers could reach {bound}, beyond int32")
    return INTEGER


def exact(weight: StoredWeight, bias: Floats | None, x: Array) -> bool:
    """Say whether a batch times the matrix gives int32; see ``result_domain``."""
    return x.dtype != np.float32 and weight.exact_integers and bias is None


def factors(weight: StoredWeight, bias: Floats | None, x: Array) -> Array:
    """Return the batch in a float type in which its products with the matrix can be summed.

    Exact sums need float64 where float32 would round.
    """
    if exact(weight, bias, x) and largest_sum(weight, domain_of(x)) >= EXACT_FLOAT_SUM:
        return to_integer(x).astype(np.float64)
    return to_float(x)


def finish(sums: Array, weight: StoredWeight, bias: Floats | None, shape: tuple[int, ...]) -> Array:
    """Turn float sums into outputs: scale, then add the bias, both of the given shape."""
    outputs: Array = sums.astype(np.float32, copy=False)
    if weight.scale.size:
        outputs = outputs * weight.scale.reshape(shape)
    return outputs if bias is None else outputs + bias.reshape(shape)


def whole(sums: Array) -> Array:
    """Return exact sums as int32; the halves of fewer planes are rounded half to even."""
    return sums.astype(np.int32) if sums.dtype.kind == "i" else np.rint(sums).astype(np.int32)


def bias_granularity(bias: Floats | None) -> int:
    """Return the ``operand`` field of a bias."""
    return NONE if bias is None else CHANNEL


def read_bias(record: Record, reader: DataReader) -> Floats | None:
    """Read the bias at ``second``, one number for each row, where there is one."""
    expect(record.operand in (NONE, CHANNEL), "a bias is missing or one per output")
    expect(record.operand == NONE or record.second != ABSENT, "a bias has no place")
    return read_operand(record.second, record.rows if record.operand else 0, reader)
