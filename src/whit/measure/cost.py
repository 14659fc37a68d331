"""What one inference of a packed program costs, from the operators that are really in the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whit.measure.energy import Energy, compute_energy, memory_energy
from whit.runtime.operators import Route

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whit.runtime.costs import OperatorCost
    from whit.runtime.program import Program


@dataclass(frozen=True)
class Cost:
    """Cost of one inference of one sample.

    What stands in the members of a route counts with the share of inputs that run it.

    Attributes:
        macs_by_width: multiply-accumulates by (weight bits, activation bits), as "w1a32".
        weight_bytes: stored bytes of all weights and other constants.
        activation_bytes: written and read between operators, each number at its own width.
        activation_peak_bytes: most bytes of values that exist at once.
        energy: modelled, compute and memory apart.
    """

    macs_by_width: dict[str, int]
    weight_bytes: int
    activation_bytes: int
    activation_peak_bytes: int
    energy: Energy

    @property
    def macs(self) -> int:
        """All multiply-accumulates, whatever their width."""
        return sum(self.macs_by_width.values())

    @property
    def flops_per_byte(self) -> float:
        """Two operations per multiply-accumulate, over bytes of weights and activations moved."""
        return 2 * self.macs / max(1, self.weight_bytes + self.activation_bytes)


def width_name(weight_bits: int, activation_bits: int) -> str:
    """Return the short name of a kind of multiply-accumulate, such as "w1a32"."""
    return f"w{weight_bits}a{activation_bits}"


def cost_of(
    operators: Iterable[OperatorCost],
    activation_peak_bytes: int,
    shares: Sequence[float] | None = None,
) -> Cost:
    """Add up the cost of a program's operators.

    Args:
        operators: records of a loaded program, in order.
        activation_peak_bytes: of the program.
        shares: of the inputs that run each record, 0 to 1; None as if all ran all.
    """
    operators = list(operators)
    shares = [1.0] * len(operators) if shares is None else shares
    peak = activation_peak_bytes
    weight_bytes = sum(op.stored_bytes for op in operators)
    macs: dict[str, float] = {}
    energy = Energy()
    for op, share in zip(operators, shares, strict=True):
        energy += operator_energy(op, weight_bytes, peak).times(share)
        if op.macs:
            name = width_name(op.weight_bits, op.activation_bits)
            macs[name] = macs.get(name, 0) + share * op.macs
    moved = sum(share * op.activation_bytes for op, share in zip(operators, shares, strict=True))
    rounded = {name: round(count) for name, count in sorted(macs.items())}
    return Cost(rounded, weight_bytes, round(moved), peak, energy)


def route_shares(
    program: Program, inputs: NDArray[Any]
) -> tuple[list[float] | None, list[list[float]]]:
    """Return how often each record runs, and each situation of each route comes about.

    Args:
        program: a loaded program.
        inputs: raw samples [samples, ...], 1 or more.

    Returns:
        Share of the inputs for each record, None without routes; for each route, in the order of
        the file, the shares of its situations.
    """
    if not any(operator.conditional or operator.kind == "route" for operator in program.operators):
        return None, []
    counts = program.count_runs(inputs)
    steps = program.steps
    shares = [counts.steps[number] / len(inputs) for number in range(len(steps))]
    routes = [
        [
            counts.situations[number, one] / len(inputs)
            for one in range(len(step.operator.strategies))
        ]
        for number, step in enumerate(steps)
        if isinstance(step.operator, Route)
    ]
    return shares, routes


def operator_energy(
    operator: OperatorCost, weight_footprint: int, activation_footprint: int
) -> Energy:
    """Return the modelled energy of one operator.

    A ternary operator adds for its non-zero weights only; other zeros are counted as work, since
    few machines skip them. Additions of biases and comparisons are left out: one per output, not
    per weight.

    Args:
        operator: one record.
        weight_footprint: bytes of all weights; they decide which memory is read.
        activation_footprint: peak bytes of activations, likewise.
    """
    macs = operator.effective_macs if operator.weight_bits == 2 else operator.macs
    energy = memory_energy(operator.stored_bytes, weight_footprint)
    energy += memory_energy(operator.activation_bytes, activation_footprint)
    if macs:
        energy += compute_energy(
            macs, operator.weight_bits, operator.activation_bits, operator.accumulation_length
        )
    return energy
