"""The operators of a packed program, each with its slow obvious NumPy meaning."""

from whit.runtime.operators.contract import Operator
from whit.runtime.operators.dense import Conv2d, Linear
from whit.runtime.operators.elementwise import Affine, Normalize, Relu, Sign, Threshold
from whit.runtime.operators.spatial import Flatten, MaxPool2d, Pad2d, Reshape
from whit.runtime.operators.table import OPERATOR_CODES, OPERATORS

__all__ = [
    "OPERATORS",
    "OPERATOR_CODES",
    "Affine",
    "Conv2d",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "Normalize",
    "Operator",
    "Pad2d",
    "Relu",
    "Reshape",
    "Sign",
    "Threshold",
]
