"""The operators of a packed program, each with its slow obvious NumPy meaning."""

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
from whit.runtime.operators.table import OPERATOR_CODES, OPERATORS
from whit.runtime.operators.thresholds import Levels, Threshold

__all__ = [
    "OPERATORS",
    "OPERATOR_CODES",
    "Add",
    "Affine",
    "AvgPool2d",
    "Clamp",
    "Concat",
    "Conv2d",
    "Curve",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "LayerNorm",
    "LeakyRelu",
    "Levels",
    "Linear",
    "Lookup",
    "MaxPool2d",
    "Member",
    "Multiply",
    "Normalize",
    "Operator",
    "Pad2d",
    "Quantize",
    "Reduce",
    "Relu",
    "Requantize",
    "Reshape",
    "Route",
    "Sign",
    "Softmax",
    "Threshold",
    "Transpose",
]
