"""The runtime of packed networks: reading files and predicting with NumPy alone."""

from whit.runtime.costs import OperatorCost
from whit.runtime.program import InputDescription, Program, Step, decode_program, load

__all__ = ["InputDescription", "OperatorCost", "Program", "Step", "decode_program", "load"]
