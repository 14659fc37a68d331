"""The closed list of operators: code in the record -> class."""

from whit.runtime.operators.contract import Operator
from whit.runtime.operators.dense import Conv2d, Linear
from whit.runtime.operators.elementwise import Affine, Normalize, Relu, Sign, Threshold
from whit.runtime.operators.spatial import Flatten, MaxPool2d, Pad2d, Reshape

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
}
OPERATOR_CODES: dict[str, int] = {operator.kind: code for code, operator in OPERATORS.items()}
