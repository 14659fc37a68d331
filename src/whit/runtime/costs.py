"""What each operator of a program costs, counted from the program itself."""

from dataclasses import dataclass

from whit.runtime.layout import Activation, product
from whit.runtime.operators import Operator


@dataclass(frozen=True)
class OperatorCost:
    """One operator as cost counting sees it; all counts are per sample.

    Attributes:
        name: kind and position, for example "linear_2".
        kind: operator name of the closed list.
        weight_format: storage format, "" without a weight.
        weight_bits: width of one weight as a multiplier sees it (1 to 32), 0 without a weight.
        weight_count: weights, zeros included.
        nonzero_weights: weights that are not 0.
        weight_bytes: stored bytes of the weights and their scales.
        constant_bytes: stored bytes of biases, thresholds and other constants.
        activation_bits: width of one input number (1, 8, 16, 32).
        output_bits: width of one output number.
        input_shape: shape of the input.
        output_shape: shape of the output.
        macs: multiply-accumulates, padding and zero weights included.
        effective_macs: multiply-accumulates of non-zero weights, padding included.
        accumulation_length: products summed into one output (n), 0 where nothing is multiplied.
        conditional: True inside the body of a member, which runs for some inputs only.
    """

    name: str
    kind: str
    weight_format: str
    weight_bits: int
    weight_count: int
    nonzero_weights: int
    weight_bytes: int
    constant_bytes: int
    activation_bits: int
    output_bits: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    effective_macs: int
    accumulation_length: int
    conditional: bool = False

    @property
    def stored_bytes(self) -> int:
        """Count the stored bytes of weights, scales and all other constants."""
        return self.weight_bytes + self.constant_bytes

    @property
    def input_elements(self) -> int:
        """Count the numbers read."""
        return product(self.input_shape)

    @property
    def output_elements(self) -> int:
        """Count the numbers written."""
        return product(self.output_shape)

    @property
    def activation_bytes(self) -> int:
        """Count the bytes of input and output together, each at its own width."""
        read = (self.input_elements * self.activation_bits + 7) // 8
        return read + (self.output_elements * self.output_bits + 7) // 8


def count_cost(
    name: str, operator: Operator, source: Activation, result: Activation, data_bytes: int
) -> OperatorCost:
    """Count one operator.

    Args:
        name: its name in the program.
        operator: the operator.
        source: what it reads.
        result: what it writes.
        data_bytes: bytes of all of its constants in the data tensor.
    """
    weight = operator.matrix
    # An embedding takes rows; nothing is multiplied.
    multiplies = weight is not None and operator.kind != "embedding"
    positions = result.elements // weight.rows if weight and multiplies else 0
    return OperatorCost(
        name=name,
        kind=operator.kind,
        weight_format=weight.form.name if weight else "",
        weight_bits=weight.bits if weight else 0,
        weight_count=weight.rows * weight.columns if weight else 0,
        nonzero_weights=weight.nonzero if weight else 0,
        weight_bytes=weight.stored_bytes if weight else 0,
        constant_bytes=data_bytes - (weight.stored_bytes if weight else 0),
        activation_bits=source.bits,
        output_bits=result.bits,
        input_shape=source.shape,
        output_shape=result.shape,
        macs=weight.rows * weight.columns * positions if weight else 0,
        effective_macs=weight.nonzero * positions if weight else 0,
        accumulation_length=weight.columns if weight and multiplies else 0,
    )
