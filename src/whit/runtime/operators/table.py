"""The closed list of operators: code in the record -> class."""

from whit.runtime.operators.activations import Clamp, Curve, LeakyRelu, Softmax
from whit.runtime.operators.contract import Operator
from whit.runtime.operators.convolution import Conv2d
from whit.runtime.operators.dense import Embedding, Linear
from whit.runtime.operators.elementwise import Affine, Normalize, Relu, Sign
from whit.runtime.operators.integers import Lookup, Quantize, Requantize
from whit.runtime.operators.joining import Add, Concat, Multiply
from whit.runtime.operators.normalisation import GroupNorm, LayerNorm
from whit.runtime.operators.padding import Pad2d
from whit.runtime.operators.pooling import AvgPool2d, MaxPool2d, Reduce
from whit.runtime.operators.routing import Member, Route
from whit.runtime.operators.shapes import Flatten, Reshape, Transpose
from whit.runtime.operators.thresholds import Levels, Threshold

# Codes never change their meaning; a new operator is one class and one entry here.
OPERATORS: dict[int, type[Operator]] = {
    1: Linear,
    2: Conv2d,
    3: Affine,
    4: Normalize,
    5: Relu,
    6: Sign,
    7: Threshold,
    8: MaxPool2d,
    9: Flatten,
    10: Reshape,
    11: Pad2d,
    12: Add,
    13: Multiply,
    14: Concat,
    15: AvgPool2d,
    16: Reduce,
    17: LeakyRelu,
    18: Clamp,
    19: Curve,
    20: Softmax,
    21: LayerNorm,
    22: GroupNorm,
    23: Embedding,
    24: Transpose,
    25: Quantize,
    26: Requantize,
    27: Levels,
    28: Lookup,
    29: Member,
    30: Route,
}
OPERATOR_CODES: dict[str, int] = {operator.kind: code for code, operator in OPERATORS.items()}
